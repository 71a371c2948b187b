"""Exact scores of a split, and averages of predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import special
from sklearn import metrics

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
    """What the predictions are worth, by scikit-learn's definitions.

    Args:
        logits: [N, classes].
        label: [N] class numbers, or [N, classes] of 0 and 1 where a clip may have
            several classes or none.

    Returns:
        With one class a clip `accuracy`, `balanced_accuracy` (the mean of the classes'
        recalls) and `macro_f1` (the mean of their F1), each as a share of 1, and
        `loss`, the mean cross-entropy in nats. With several `mAP`, the mean of the
        average precision of the classes that occur, `macro_f1` of the classes with
        more than even odds, and `loss`, the mean binary cross-entropy in nats. And
        `num_clips`.

    Raises:
        InputError: if a logit is not finite: all-NaN logits would score as class 0.
    """
    bad = np.sum(~np.isfinite(logits).all(axis=-1))
    if bad:
        raise InputError(
            f"{bad} of {len(logits)} clips have logits that are not finite; the "
            "training diverged, so lower config.optimizer.learning_rate"
        )
    score = _multi_label if label.ndim == 2 else _single_label
    found = {name: float(value) for name, value in score(logits, label).items()}
    return found | {"num_clips": len(label)}


def _single_label(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    predicted = logits.argmax(axis=-1)
    with warnings.catch_warnings():
        # A class that is predicted and not there has no recall, and is left out.
        warnings.filterwarnings("ignore", message="y_pred contains classes")
        balanced = metrics.balanced_accuracy_score(label, predicted)
    return {
        "accuracy": np.mean(predicted == label),
        "balanced_accuracy": balanced,
        "macro_f1": metrics.f1_score(label, predicted, average="macro"),
        "loss": -np.mean(log_softmax(logits)[np.arange(len(label)), label]),
    }


def _multi_label(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    there = label.any(axis=0)
    precisions = [
        metrics.average_precision_score(label[:, i], logits[:, i])
        for i in np.flatnonzero(there)
    ]
    logits = np.asarray(logits, np.float64)
    return {
        "mAP": np.mean(precisions) if precisions else 0.0,
        "macro_f1": metrics.f1_score(
            label,
            logits > 0,
            average="macro",
            zero_division=0,  # pyright: ignore[reportArgumentType]
        ),
        "loss": np.mean(np.logaddexp(0, logits) - label * logits),
    }


def metric(scored: Mapping[str, Any]) -> str:
    """The name of the score that is reported first: "mAP" or "accuracy"."""
    return "mAP" if "mAP" in scored else "accuracy"


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
    members: Sequence[np.ndarray],
    weights: Sequence[float] | None = None,
    *,
    multi_label: bool = False,
) -> np.ndarray:
    """The mean of several members' probabilities, as logits that give it.

    So it is scored, averaged again or shown as any other logits are; and no
    probability is rounded to 0 on the way.

    Args:
        members: logits, one array [N, classes] a member, of the same clips.
        weights: one a member, not all 0, made to sum to 1; None: all alike.
        multi_label: whether each class has a probability of its own, the sigmoid of
            its logit, instead of a share of the softmax.

    Returns:
        Logits [N, classes] float64; with one class a clip log-probabilities.
    """
    shares = np.ones(len(members)) if weights is None else np.asarray(weights)
    shares = (shares / shares.sum())[:, None, None]

    def log_mean(logs: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(special.logsumexp(np.stack(logs), axis=0, b=shares))

    if not multi_label:
        return log_mean([log_softmax(m) for m in members])
    wide = [np.asarray(m, np.float64) for m in members]
    there = log_mean([special.log_expit(m) for m in wide])
    return there - log_mean([special.log_expit(-m) for m in wide])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation (of the population) over the folds."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}
