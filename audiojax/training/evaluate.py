"""Predictions of every clip of a split, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from audiojax.classifier import Classifier, Variables
from audiojax.clips import by_clip
from audiojax.training import program, steps
from audiojax.training.feed import Data, Feed
from audiojax.training.hosts import Hosts
from audiojax.workdir import Predictions


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


class Evaluator:
    """Predicts and scores clips with a classifier, on all devices of all processes."""

    def __init__(
        self,
        classifier: Classifier,
        data: Data,
        feed: Feed,
        batch_size: int,
        hosts: Hosts,
    ):
        """Compiles nothing yet.

        Args:
            classifier: whose logits are taken.
            data: the clips.
            feed: gives their batches.
            batch_size: rows of a batch.
            hosts: the processes that share the clips.
        """
        self._task, self._info = classifier.task, data.info
        self._feed, self._hosts = feed, hosts
        devices = program.batch_devices(batch_size, jax.local_devices())
        compiled = steps.data_parallel_eval(steps.make_eval_step(classifier), devices)
        self._eval_step = lambda variables, batch: compiled(
            variables, steps.shard(batch, len(devices))
        )

    def logits(
        self, variables: Variables, indices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits, labels and clip numbers of the clips `indices`."""
        # Processes share the clips, if there are enough for each to get one.
        shared = self._hosts if len(indices) >= self._hosts.count else Hosts()
        batches = self._feed.evaluation(shared.share(indices))
        logits, label, index = (
            shared.gather(values, len(indices))
            for values in predict(self._eval_step, variables, batches)
        )
        return logits, label, index

    def predictions(self, variables: Variables, indices: np.ndarray) -> Predictions:
        """Predictions of the clips `indices`."""
        logits, label, indices = self.logits(variables, indices)
        names = [self._info.clips[i].filename for i in indices]
        return Predictions(logits, label, np.array(names))

    def scores(self, variables: Variables, indices: np.ndarray) -> dict[str, Any]:
        """Scores of the clips `indices`."""
        logits, label, _ = self.logits(variables, indices)
        return self._task.scores(logits, label)
