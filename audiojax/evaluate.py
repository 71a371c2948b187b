"""Exact scores of a split, and averages of predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import special

from audiojax.classifier import Variables
from audiojax.errors import InputError


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


def by_clip(
    logits: np.ndarray, label: np.ndarray, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of each clip's windows.

    Args:
        logits: [W, classes] of the windows.
        label: [W] or [W, classes].
        index: [W] the number of the window's clip.

    Returns:
        Logits [N, classes] float32, labels and clip numbers [N], each clip once, in
        the order in which they first stand.
    """
    _, first, clip = np.unique(index, return_index=True, return_inverse=True)
    total = np.zeros((len(first), logits.shape[-1]))
    np.add.at(total, clip, logits)
    mean = total / np.bincount(clip)[:, None]
    order = np.argsort(first)
    kept = first[order]
    return mean[order].astype(np.float32), label[kept], index[kept]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits [..., classes], in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def scores(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Accuracy and mean cross-entropy.

    Args:
        logits: [N, classes].
        label: [N], class numbers.

    Returns:
        `accuracy` as a share of 1, `loss` in nats, `num_clips`.

    Raises:
        InputError: if a logit is not finite: all-NaN logits would score as class 0.
    """
    bad = np.sum(~np.isfinite(logits).all(axis=-1))
    if bad:
        raise InputError(
            f"{bad} of {len(logits)} clips have logits that are not finite; the "
            "training diverged, so lower config.optimizer.learning_rate"
        )
    rows = np.arange(len(label))
    return {
        "accuracy": float(np.mean(logits.argmax(-1) == label)),
        "loss": float(-np.mean(log_softmax(logits)[rows, label])),
        "num_clips": len(label),
    }


def average(
    members: Sequence[np.ndarray], weights: Sequence[float] | None = None
) -> np.ndarray:
    """The mean of several members' logits, the ensemble of the paper.

    Args:
        members: one array [N, classes] a member, of the same clips.
        weights: one a member, not all 0, made to sum to 1; None: all alike.

    Returns:
        [N, classes] float64.
    """
    stacked = np.stack([np.asarray(m, np.float64) for m in members])
    return np.average(stacked, axis=0, weights=weights)


def average_probabilities(
    members: Sequence[np.ndarray], weights: Sequence[float] | None = None
) -> np.ndarray:
    """The mean of several members' probabilities, as its logarithm.

    So it is scored, averaged again or shown as any other logits are; and no
    probability is rounded to 0 on the way.

    Args:
        members: logits, one array [N, classes] a member, of the same clips.
        weights: one a member, not all 0, made to sum to 1; None: all alike.

    Returns:
        Log-probabilities [N, classes] float64.
    """
    shares = np.ones(len(members)) if weights is None else np.asarray(weights)
    shares = (shares / shares.sum())[:, None, None]
    logs = np.stack([log_softmax(m) for m in members])
    return np.asarray(special.logsumexp(logs, axis=0, b=shares))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation (of the population) over the folds."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}
