"""What a linear classifier makes of features: how much of the classes they tell."""

from __future__ import annotations

import dataclasses

import numpy as np
import threadpoolctl
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from audiojax.errors import InputError

# Strengths to choose from, scikit-learn's C: the inverse of the L2 penalty.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Where there are too few clips of a class to choose by.
DEFAULT_STRENGTH = 1e-2
FOLDS = 4


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        accuracy: share of the test clips that are right, from 0 to 1.
        train_accuracy: that of the clips it was fitted on.
        strength: scikit-learn's C that was taken.
    """

    accuracy: float
    train_accuracy: float
    strength: float


def fit(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
    groups: np.ndarray | None = None,
) -> Probe:
    """Fits a multinomial logistic regression to standardized features, and scores it.

    Alain and Bengio 2016, arXiv 1610.01644. The strength of its L2 penalty is the one
    of `STRENGTHS` with the least cross-entropy in a cross-validation of the training
    clips alone.

    Args:
        train: features [N, D] of the training clips.
        train_label: their class numbers [N].
        test: features [M, D] of the test clips.
        test_label: their class numbers [M].
        groups: [N] clips that belong together, by their folds or recordings, so that
            none is scored by a fit that heard its sisters; None where none do.

    Raises:
        InputError: if labels are not one class a clip, the shapes do not fit, features
            are not finite, or all training clips are of one class.
    """
    _check(train, train_label, test, test_label)
    # The products are small: sharing them among threads takes ten times as long.
    with threadpoolctl.threadpool_limits(1, "blas"):
        return _fit(train, train_label, test, test_label, groups)


def _fit(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
    groups: np.ndarray | None,
) -> Probe:
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    scaler = StandardScaler().fit(train)
    train, test = (np.asarray(scaler.transform(x)) for x in (train, test))
    if train.shape[1] > len(train):
        # The weights are a sum of training clips; in a basis of those clips' span the
        # fit is the same, and as small as they are few.
        basis = np.linalg.svd(train, full_matrices=False)[2].T
        train, test = train @ basis, test @ basis
    strength = _choose(train, train_label, groups)
    model = _model(strength).fit(train, train_label)
    right = [model.score(*of) for of in ((test, test_label), (train, train_label))]
    return Probe(float(right[0]), float(right[1]), strength)


def _model(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, tol=1e-6, max_iter=5000, warm_start=True)


def _choose(rows: np.ndarray, label: np.ndarray, groups: np.ndarray | None) -> float:
    """The strength with the least cross-entropy of clips that a fit left out."""
    groups = np.arange(len(rows)) if groups is None else np.asarray(groups)
    rarest = np.unique(label, return_counts=True)[1].min()
    folds = min(FOLDS, rarest, len(np.unique(groups)))
    if folds < 2:
        return DEFAULT_STRENGTH
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    losses = np.zeros(len(STRENGTHS))
    for fitted, left in splits.split(rows, label, groups):
        if len(np.unique(label[fitted])) < 2:
            return DEFAULT_STRENGTH
        model = _model(STRENGTHS[0])
        for i, strength in enumerate(STRENGTHS):
            # It goes on from the weights of the strength before.
            model.set_params(C=strength).fit(rows[fitted], label[fitted])
            losses[i] += _loss(model, rows[left], label[left])
    return STRENGTHS[int(losses.argmin())]


def _loss(model: LogisticRegression, rows: np.ndarray, label: np.ndarray) -> float:
    """The sum of the cross-entropies, without the classes that were not fitted."""
    known = np.isin(label, model.classes_)
    column = np.searchsorted(model.classes_, label[known])
    logs = model.predict_log_proba(rows[known])
    return -float(logs[np.arange(len(column)), column].sum())


def _check(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
) -> None:
    if np.ndim(train_label) != 1 or np.ndim(test_label) != 1:
        raise InputError(
            "a probe takes one class a clip, and these clips have several: give the "
            "labels of one class at a time"
        )
    for features, label in ((train, train_label), (test, test_label)):
        if np.ndim(features) != 2 or len(features) != len(label) or not len(label):
            raise InputError(
                f"features of shape {np.shape(features)} and {len(label)} labels; a "
                "probe takes [N, D] and [N]: give one row of features a clip"
            )
        if not np.isfinite(features).all():
            raise InputError(
                "features that are not finite, so the network diverged: train it again "
                "with a lower config.optimizer.learning_rate"
            )
    if train.shape[1] != test.shape[1]:
        raise InputError(
            f"features of {train.shape[1]} dimensions for training and of "
            f"{test.shape[1]} for the test: take both from the same layer"
        )
    if len(np.unique(train_label)) < 2:
        raise InputError(
            "all training clips of a probe are of one class; give clips of at least two"
        )
