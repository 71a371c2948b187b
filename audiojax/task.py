"""One class a clip or several: loss, probabilities, scores and averages.

The data set says which, once; nobody else looks at a label's shape.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special

from audiojax.errors import InputError

# What can be averaged over the members of an ensemble.
KINDS = ("logits", "probabilities")

# Members' logits, one array [N, classes] each of the same clips, and their weights
# (None: all alike) -> logits [N, classes] float64.
Average = Callable[[Sequence[np.ndarray], "Sequence[float] | None"], np.ndarray]


class Task(abc.ABC):
    """What labels mean.

    Attributes:
        name: a key of `TASKS`.
        metric: the name of the score that is reported first, a share of 1.
    """

    name: str
    metric: str

    @abc.abstractmethod
    def targets(self, label: jax.Array, num_classes: int) -> jax.Array:
        """Labels of a batch as shares of the classes, float32 [B, classes]."""

    @abc.abstractmethod
    def losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Each clip's loss, in nats: [B].

        Args:
            logits: [B, classes].
            targets: [B, classes], also soft ones, such as mixed labels.
        """

    @abc.abstractmethod
    def smoothed(self, targets: jax.Array, amount: float) -> jax.Array:
        """Targets [B, classes] moved towards knowing nothing, by a share of the way.

        So the loss does not reward logits that grow without end (Szegedy et al. 2016,
        arXiv 1512.00567).
        """

    @abc.abstractmethod
    def correct(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """How much of each clip's prediction is right, from 0 to 1: [B]."""

    @abc.abstractmethod
    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logarithms of the classes' probabilities [..., classes], in float64."""

    @abc.abstractmethod
    def _scores(self, logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        """Scores of finite logits."""

    def average_probabilities(
        self, members: Sequence[np.ndarray], weights: Sequence[float] | None = None
    ) -> np.ndarray:
        """The mean of several members' probabilities, as logits that give it.

        So it is scored, averaged again or shown as any other logits are; and no
        probability is rounded to 0 on the way.

        Args:
            members: logits, one array [N, classes] a member, of the same clips.
            weights: one a member, not all 0, made to sum to 1; None: all alike.

        Returns:
            Logits [N, classes] float64; with one class a clip log-probabilities.
        """
        logs = np.stack([self.log_probabilities(member) for member in members])
        shares = np.ones(len(logs)) if weights is None else np.asarray(weights)
        shares = (shares / shares.sum())[:, None, None]
        return np.asarray(special.logsumexp(logs, axis=0, b=shares))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """The classes' probabilities [..., classes], in float64."""
        return np.exp(self.log_probabilities(logits))

    def average(self, kind: str) -> Average:
        """What averages members' "logits", as the paper does, or "probabilities"."""
        return self.average_probabilities if kind == "probabilities" else average

    def scores(self, logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        """What the predictions are worth, by scikit-learn's definitions.

        Args:
            logits: [N, classes].
            label: [N] class numbers; where a clip may have several classes or none,
                [N, classes] of 0 and 1.

        Returns:
            With one class a clip `accuracy`, `balanced_accuracy` (the mean of the
            classes' recalls) and `macro_f1` (the mean of their F1), each as a share of
            1, and `loss`, the mean cross-entropy in nats. With several `mAP`, the mean
            of the average precision of the classes that occur, `macro_f1` of the
            classes with more than even odds, and `loss`, the mean binary cross-entropy
            in nats. And `num_clips`.

        Raises:
            InputError: if a logit is not finite: all-NaN logits would score as class 0.
        """
        bad = np.sum(~np.isfinite(logits).all(axis=-1))
        if bad:
            raise InputError(
                f"{bad} of {len(logits)} clips have logits that are not finite; the "
                "training diverged, so lower config.optimizer.learning_rate"
            )
        found = self._scores(logits, label)
        scored = {name: float(value) for name, value in found.items()}
        return scored | {"num_clips": len(label)}

    def rank(self, scored: Mapping[str, Any]) -> tuple[float, float]:
        """What is larger for better scores: the metric, then the lower loss."""
        return scored[self.metric], -scored["loss"]


class SingleLabel(Task):
    """Every clip has one class; the classes' probabilities sum to 1."""

    name = "single_label"
    metric = "accuracy"

    def targets(self, label: jax.Array, num_classes: int) -> jax.Array:
        """1 for the class of each clip [B], 0 for the others."""
        return jax.nn.one_hot(label, num_classes, dtype=jnp.float32)

    def losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Cross-entropy."""
        return optax.softmax_cross_entropy(logits, targets)

    def smoothed(self, targets: jax.Array, amount: float) -> jax.Array:
        """Towards equal shares of all classes."""
        return optax.smooth_labels(targets, amount)

    def correct(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """1 where the largest logit is that of the largest share."""
        return (logits.argmax(-1) == targets.argmax(-1)).astype(jnp.float32)

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Of the softmax."""
        return special.log_softmax(np.asarray(logits, np.float64), axis=-1)

    def _scores(self, logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        from sklearn import metrics  # it takes a second, and predicting needs it not

        predicted = logits.argmax(axis=-1)
        with warnings.catch_warnings():
            # A class that is predicted and not there has no recall, and is left out.
            warnings.filterwarnings("ignore", message="y_pred contains classes")
            balanced = metrics.balanced_accuracy_score(label, predicted)
        of_label = self.log_probabilities(logits)[np.arange(len(label)), label]
        return {
            "accuracy": np.mean(predicted == label),
            "balanced_accuracy": balanced,
            "macro_f1": metrics.f1_score(label, predicted, average="macro"),
            "loss": -np.mean(of_label),
        }


class MultiLabel(Task):
    """A clip may have several classes, or none; each has a probability of its own."""

    name = "multi_label"
    metric = "mAP"

    def targets(self, label: jax.Array, num_classes: int) -> jax.Array:
        """The labels [B, classes] themselves."""
        return label.astype(jnp.float32)

    def losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """The mean of the classes' binary cross-entropy."""
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean(axis=-1)

    def smoothed(self, targets: jax.Array, amount: float) -> jax.Array:
        """Towards 1/2 for each class."""
        return (1 - amount) * targets + amount / 2

    def correct(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """The share of classes on the right side of even odds."""
        return jnp.mean((logits > 0) == (targets > 0.5), axis=-1)

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Of the sigmoid."""
        return special.log_expit(np.asarray(logits, np.float64))

    def average_probabilities(
        self, members: Sequence[np.ndarray], weights: Sequence[float] | None = None
    ) -> np.ndarray:
        """Of each class by itself: the mean that it is there against that it is not."""
        there = super().average_probabilities(members, weights)
        absent = super().average_probabilities([-m for m in members], weights)
        return there - absent

    def _scores(self, logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        from sklearn import metrics

        precisions = [
            metrics.average_precision_score(label[:, i], logits[:, i])
            for i in np.flatnonzero(label.any(axis=0))
        ]
        logits = np.asarray(logits, np.float64)
        nothing: Any = 0  # its annotation knows text alone
        return {
            "mAP": np.mean(precisions) if precisions else 0.0,
            "macro_f1": metrics.f1_score(
                label, logits > 0, average="macro", zero_division=nothing
            ),
            "loss": np.mean(np.logaddexp(0, logits) - label * logits),
        }


TASKS: dict[str, Task] = {task.name: task for task in (SingleLabel(), MultiLabel())}


def of(multi_label: bool) -> Task:
    """The task of a data set whose clips may have several labels, or have one."""
    return TASKS["multi_label" if multi_label else "single_label"]


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
