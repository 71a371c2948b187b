"""Predictions of every clip of a split, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from audiojax.classifier import Classifier, Variables
from audiojax.clips import by_clip
from audiojax.training import program, steps
from audiojax.training.feed import Feed
from audiojax.training.hosts import Hosts
from audiojax.workdir import Predictions


def predict(
    eval_step: Callable[[Variables, Mapping[str, Any]], jax.Array],
    variables: Variables,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of every clip, each once, padding left out.

    The step gives logits [..., classes], whose leading axes are the batch; batches are
    as `datasets.batches.eval_batches` gives them.

    Returns:
        Logits [N, classes] float32, the mean of a clip's windows; labels [N] or
        [N, classes]; and clip numbers [N], in the order of the batches.
    """
    found = []
    for batch in batches:
        real = np.asarray(batch["mask"]) > 0
        logits = np.asarray(eval_step(variables, batch), np.float32)
        rows = logits.reshape(real.size, -1), batch["label"], batch["index"]
        found.append([values[real] for values in rows])
    return by_clip(*map(np.concatenate, zip(*found, strict=True)))


class Evaluator:
    """Predicts and scores clips with a classifier, on all devices of all processes.

    Attributes:
        feed: gives the clips' batches.
        task: that scores them.
    """

    def __init__(self, classifier: Classifier, feed: Feed):
        """Compiles nothing yet."""
        self.feed, self.task = feed, classifier.task
        devices = program.batch_devices(feed.batch_size, jax.local_devices())
        compiled = steps.data_parallel_eval(steps.make_eval_step(classifier), devices)
        self._eval_step = lambda variables, batch: compiled(
            variables, steps.shard(batch, len(devices))
        )

    def predictions(self, variables: Variables, indices: np.ndarray) -> Predictions:
        """Predictions of the clips `indices`."""
        # Processes share the clips, if there are enough for each to get one.
        hosts = self.feed.hosts if len(indices) >= self.feed.hosts.count else Hosts()
        batches = self.feed.evaluation(hosts.share(indices))
        logits, label, index = (
            hosts.gather(values, len(indices))
            for values in predict(self._eval_step, variables, batches)
        )
        clips = self.feed.data.info.clips
        return Predictions(logits, label, np.array([clips[i].filename for i in index]))

    def scores(self, variables: Variables, indices: np.ndarray) -> dict[str, Any]:
        """Scores of the clips `indices`."""
        found = self.predictions(variables, indices)
        return self.task.scores(found.logits, found.label)
