"""Predictions of every clip of a split, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from audiojax.classifier import Variables
from audiojax.clips import by_clip


def predict(
    eval_step: Callable[[Variables, Mapping[str, Any]], jax.Array],
    variables: Variables,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of every clip, each once, padding left out.

    Args:
        eval_step: batch to logits [..., classes], whose leading axes are the batch.
        variables: the classifier's.
        batches: as `datasets.batches.eval_batches` gives them.

    Returns:
        Logits [N, classes] float32, the mean of a clip's windows; labels [N] or
        [N, classes]; and clip numbers [N], in the order of the batches.
    """
    logits, labels, indices = [], [], []
    for batch in batches:
        real = np.asarray(batch["mask"]) > 0
        step_logits = np.asarray(eval_step(variables, batch), np.float32)
        logits.append(step_logits.reshape(real.size, -1)[real])
        labels.append(batch["label"][real])
        indices.append(batch["index"][real])
    return by_clip(*map(np.concatenate, (logits, labels, indices)))
