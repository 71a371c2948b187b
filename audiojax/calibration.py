"""How far scores and probabilities can be relied on: intervals and calibration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import optimize

from audiojax.task import Task

# The quantile of the normal distribution for intervals of 95 %.
Z = 1.959963984540054
NUM_BINS = 15
RESAMPLES = 200
# No network that learned anything needs more.
LARGEST_TEMPERATURE = 100.0


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson 1927 (doi 10.2307/2276774).

    It also holds, if anything too wide, for the mean of several seeds' shares of the
    same clips: a clip's mean varies no more than a single 0 or 1.

    Args:
        share: of successes, from 0 to 1.
        count: trials; here clips, however many seeds there are.

    Returns:
        Its ends, from 0 to 1.
    """
    middle = share + Z**2 / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def wilson_together(
    shares: Sequence[float], counts: Sequence[int]
) -> tuple[float, float]:
    """The 95 % interval (`wilson`) of the share in all parts together.

    Args:
        shares: of successes in each part, such as a fold.
        counts: trials in each part.
    """
    total = sum(counts)
    return wilson(float(np.dot(shares, counts)) / total, total)


def resamples(count: int, seed: int = 0) -> np.ndarray:
    """How often each clip is drawn in each bootstrap sample (Efron 1979).

    Returns:
        [RESAMPLES, count], each row with the sum `count`.
    """
    shares = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)


def mean_average_precision(
    label: np.ndarray, logits: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Finds the mAP of weighted clips, over the classes that occur among them.

    Args:
        label: [N, classes] of 0 and 1.
        logits: [N, classes].
        weights: [R, N], one weighting a row.

    Returns:
        [R]; 0 where no class occurs.
    """
    total, occurring = np.zeros(len(weights)), np.zeros(len(weights))
    for positive, score in zip(label.T, logits.T, strict=True):
        order = np.argsort(-score, kind="stable")
        # Clips of one score come in together.
        last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
        found = np.cumsum(weights[:, order] * positive[order], axis=1)[:, last]
        taken = np.cumsum(weights[:, order], axis=1)[:, last]
        steps = np.diff(found, axis=1, prepend=0)
        area = np.sum(steps * found / np.maximum(taken, 1e-12), axis=1)
        there = found[:, -1] > 0
        total += np.where(there, area / np.maximum(found[:, -1], 1e-12), 0)
        occurring += there
    return total / np.maximum(occurring, 1)


def percentiles(replicates: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a score by its bootstrap replicates [R]."""
    low, high = np.percentile(replicates, [2.5, 97.5])
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Predictions in bins of their probability, as a reliability diagram shows them.

    Attributes:
        edges: of the bins, [bins + 1]; a bin holds its upper edge, not its lower one.
        count: predictions in each, [bins].
        confidence: their mean probability, [bins]; 0 in an empty bin.
        accuracy: the share of them that is right, [bins]; 0 in an empty bin.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, as a share of 1.

        The mean distance of confidence and accuracy, each bin weighted by what it
        holds (Guo et al. 2017, arXiv 1706.04599, equation 3).
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.sum(self.count * gaps) / max(self.count.sum(), 1))


def reliability(
    confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS
) -> Reliability:
    """Sorts predictions into bins of equal width.

    Args:
        confidence: [N] probabilities given.
        correct: [N], whether each was right.
        num_bins: between 0 and 1.
    """
    edges = np.linspace(0, 1, num_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, num_bins - 1)
    count = np.bincount(place, minlength=num_bins)
    some = np.maximum(count, 1)
    return Reliability(
        edges,
        count,
        np.bincount(place, confidence, num_bins) / some,
        np.bincount(place, np.asarray(correct, float), num_bins) / some,
    )


def confidences(
    logits: np.ndarray, label: np.ndarray, task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """What was given a probability, and whether it was so.

    Args:
        logits: [N, classes].
        label: as the task has them.
        task: what they mean.

    Returns:
        Probability and truth: [N] of the likeliest class of each clip; where a clip
        may have several classes [N * classes], of each class of each clip.
    """
    probability = np.exp(task.log_probabilities(logits))
    if task.name == "multi_label":
        return probability.ravel(), label.ravel() > 0.5
    return probability.max(axis=-1), logits.argmax(axis=-1) == label


def temperature(logits: np.ndarray, label: np.ndarray, task: Task) -> float:
    """What logits are divided by for the least loss (Guo et al. 2017, section 4.2).

    Args:
        logits: [N, classes] of clips that were not trained on, nor are tested on.
        label: as the task has them.
        task: whose loss it is.

    Returns:
        Above 1 where the network was too sure. No class's rank changes by it.
    """
    targets = task.targets(jnp.asarray(label), logits.shape[1])

    def loss(logarithm: float) -> float:
        scaled = jnp.asarray(logits / math.exp(logarithm), jnp.float32)
        return float(np.mean(np.asarray(task.losses(scaled, targets), np.float64)))

    limit = math.log(LARGEST_TEMPERATURE)
    found: Any = optimize.minimize_scalar(
        loss, bounds=(-limit, limit), method="bounded"
    )
    return math.exp(found.x)
