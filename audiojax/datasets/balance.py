"""Weights for classes of unequal size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audiojax.errors import check_choice

BALANCES = ("none", "class_weights", "sampling")


def check(balance: str) -> None:
    """Checks a choice of how unequal classes are balanced.

    Raises:
        InputError: if it is not one of `BALANCES`.
    """
    check_choice("config.data.balance", balance, BALANCES)


def clip_weights(labels: Sequence[tuple[int, ...]], num_classes: int) -> np.ndarray:
    """How much each clip must count for all classes to count alike.

    A class weighs as scikit-learn's "balanced" says, N / (classes * its clips), over
    the classes that occur; a clip of several classes weighs their mean, and one of none
    1.

    Args:
        labels: [N] class numbers of each clip.
        num_classes: how many classes there are.

    Returns:
        float32 [N].
    """
    counts = np.bincount(
        np.concatenate([*labels, ()]).astype(int), minlength=num_classes
    )
    weight = len(labels) / (max(np.count_nonzero(counts), 1) * np.maximum(counts, 1))
    return np.array(
        [weight[list(of_clip)].mean() if of_clip else 1.0 for of_clip in labels],
        np.float32,
    )
