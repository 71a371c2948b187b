"""How alike two sets of features of the same clips are, and how far weights moved.

Features are [N, D]: N examples, which are clips or the pixels of their images, in the
same order in both sets, and D dimensions, which are channels. All is computed in
float64. Two facts decide which measure to take:

- The mean canonical correlation of independent features is near 0 only where examples
  are many times the dimensions, and 1 where they are fewer: `cca` and `svcca` refuse
  less than `EXAMPLES_PER_DIMENSION` for each. SVCCA keeps fewer directions, but how
  many is known only when all is trained, and the number of channels before.
- So is the CKA of the paper; its debiased form, the default, is near 0 for independent
  features of any number of dimensions.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from audiojax.errors import InputError

# With five, the mean canonical correlation of independent features is about 0.4; with
# fifty about 0.1.
EXAMPLES_PER_DIMENSION = 5
# What of all variance SVCCA keeps.
VARIANCE = 0.99
# Directions with a smaller share of the largest variance are rounding of float32.
_ROUNDING = 1e-10


def check_examples(examples: int, dimensions: int) -> None:
    """Checks that there are examples enough for canonical correlations.

    Args:
        examples: how many there will be.
        dimensions: of the features; the larger number, where the two sets differ.

    Raises:
        InputError: if they are too few.
    """
    if examples < (least := EXAMPLES_PER_DIMENSION * dimensions):
        raise InputError(
            f"{examples} examples are too few for {dimensions} dimensions, expected at "
            f"least {least}: give more clips, take pixels as examples, or compare a "
            "layer of fewer channels"
        )


def cka(x: np.ndarray, y: np.ndarray, *, debiased: bool = True) -> float:
    """Linear centered kernel alignment: Kornblith et al. 2019, arXiv 1905.00414.

    It is the same for features that are rotated, reflected, moved, or scaled as a
    whole, and not for those whose directions are scaled apart.

    Args:
        x: features [N, D].
        y: features [N, E] of the same examples.
        debiased: by the unbiased estimator of HSIC (Song et al. 2012, as the paper's
            published code has it). False for the paper's formula, which for independent
            features is about D / (N + D), not 0.

    Returns:
        1 for the same features, about 0 for independent ones; the debiased form may be
        a little below 0.

    Raises:
        InputError: if the features are not of the same examples, are constant or not
            finite; or if examples are too few: for the paper's formula as in
            `check_examples`, for the debiased one where noise is all there is.
    """
    x, y = _checked(x, y)
    if not debiased:
        check_examples(len(x), max(x.shape[1], y.shape[1]))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    alike, norm_x, norm_y = (
        _alignment(a, b, debiased) for a, b in ((x, y), (x, x), (y, y))
    )
    if min(norm_x, norm_y) <= 0:
        raise InputError(
            f"{len(x)} examples are too few to tell features of {x.shape[1]} and "
            f"{y.shape[1]} dimensions from noise: give more clips"
        )
    return float(alike / np.sqrt(norm_x * norm_y))


def _alignment(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    """The sum of the products of two Gram matrices' entries, of centered features.

    Debiased, that without their diagonals, centered for that: the sum of the products
    of the U-centered matrices.
    """
    few = len(x) < max(x.shape[1], y.shape[1])
    biased = np.sum((x @ x.T) * (y @ y.T)) if few else np.sum((x.T @ y) ** 2)
    if not debiased:
        return float(biased)
    count, squares_x, squares_y = len(x), np.sum(x**2, 1), np.sum(y**2, 1)
    diagonals = squares_x @ squares_y * count / (count - 2)
    traces = squares_x.sum() * squares_y.sum() / ((count - 1) * (count - 2))
    return float(biased - diagonals + traces)


class Moments:
    """What canonical correlations need of features, added up batch by batch.

    So all pixels of many clips can be examples without being in memory at once.

    Attributes:
        count: number of examples so far.
    """

    def __init__(self):
        """Has seen no examples yet."""
        self.count = 0
        self._mean_x = self._mean_y = np.zeros(0)
        self._xx = self._yy = self._xy = np.zeros((0, 0))

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Adds examples: features [N, D] of one network and [N, E] of another.

        Means and products are merged by the rule of Chan et al. 1982, which keeps its
        digits where means are large.

        Raises:
            InputError: if they are not of the same examples.
        """
        x, y = _paired(x, y)
        mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
        x, y = x - mean_x, y - mean_y
        products = x.T @ x, y.T @ y, x.T @ y
        if not self.count:
            self._mean_x, self._mean_y = mean_x, mean_y
            self._xx, self._yy, self._xy = products
        else:
            moved_x, moved_y = mean_x - self._mean_x, mean_y - self._mean_y
            total = self.count + len(x)
            weight = self.count * len(x) / total
            self._xx += products[0] + weight * np.outer(moved_x, moved_x)
            self._yy += products[1] + weight * np.outer(moved_y, moved_y)
            self._xy += products[2] + weight * np.outer(moved_x, moved_y)
            self._mean_x = self._mean_x + moved_x * len(x) / total
            self._mean_y = self._mean_y + moved_y * len(x) / total
        self.count += len(x)

    def correlations(self, variance: float = 1.0) -> np.ndarray:
        """The canonical correlations, the largest first.

        Args:
            variance: of each set the directions are kept that hold this share of its
                variance, the largest first.

        Returns:
            [K], from 0 to 1, as many as the set of fewer kept directions has.

        Raises:
            InputError: as `svcca`.
        """
        check_examples(self.count, max(1, *self._xy.shape))
        for products, mean in ((self._xx, self._mean_x), (self._yy, self._mean_y)):
            _check_variance(np.trace(products) / self.count, mean)
        white_x, white_y = _whitener(self._xx, variance), _whitener(self._yy, variance)
        found = np.linalg.svd(white_x.T @ self._xy @ white_y, compute_uv=False)
        return np.clip(found, 0, 1)


def _whitener(products: np.ndarray, variance: float) -> np.ndarray:
    """The main directions [D, K], each over the root of its sum of squares."""
    squares, directions = np.linalg.eigh(products)
    squares, directions = squares[::-1], directions[:, ::-1]
    real = np.count_nonzero(squares > _ROUNDING * squares[0])
    share = np.cumsum(squares[:real]) / np.sum(squares[:real])
    # Up to the first with which the share is reached.
    kept = min(np.count_nonzero(share < variance) + 1, real)
    return directions[:, :kept] / np.sqrt(squares[:kept])


def cca(x: np.ndarray, y: np.ndarray) -> float:
    """The mean canonical correlation (Hotelling 1936), over all directions.

    It is the same for features that are changed by any invertible affine map.

    Args, Returns, Raises: as `svcca`.
    """
    return _mean_correlation(x, y, 1.0)


def svcca(x: np.ndarray, y: np.ndarray) -> float:
    """SVCCA: Raghu et al. 2017, arXiv 1706.05806.

    The mean canonical correlation of the main directions, those that hold 99 % of the
    variance. It is the same for features that are rotated, reflected, moved, or scaled
    as a whole; and for any invertible affine map that leaves the directions it keeps
    the same.

    Args:
        x: features [N, D].
        y: features [N, E] of the same examples.

    Returns:
        1 for the same features, near 0 for independent ones if N is many times D and E.

    Raises:
        InputError: if the features are not of the same examples, are constant or not
            finite, or if examples are too few (`check_examples`).
    """
    return _mean_correlation(x, y, VARIANCE)


def _mean_correlation(x: np.ndarray, y: np.ndarray, variance: float) -> float:
    moments = Moments()
    moments.add(x, y)
    return float(moments.correlations(variance).mean())


def relative_change(before: Any, after: Any) -> float:
    """The norm of the difference of two trees of arrays, over the norm before.

    Args:
        before: parameters, such as those of a stage.
        after: the same with other values.

    Returns:
        0 for the same values; for independent ones of the same norm about the root
        of 2.

    Raises:
        InputError: if all values before are 0.
    """
    start, end = (
        [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
        for tree in (before, after)
    )
    moved = sum(np.sum((a - b) ** 2) for a, b in zip(end, start, strict=True))
    norm = sum(np.sum(a**2) for a in start)
    if norm == 0:
        raise InputError(
            "all weights before are 0, so that their change has no measure: give "
            "others to compare with"
        )
    return float(np.sqrt(moved / norm))


def _paired(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features in float64."""
    if np.ndim(x) != 2 or np.ndim(y) != 2 or len(x) != len(y) or not len(x):
        raise InputError(
            f"features of shapes {np.shape(x)} and {np.shape(y)}; expected [N, D] and "
            "[N, E]: give features of the same clips to both"
        )
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _paired(x, y)
    if len(x) < 4:
        raise InputError(f"{len(x)} examples; expected at least 4: give more clips")
    for features in (x, y):
        _check_variance(features.var(axis=0).sum(), features.mean(axis=0))
    return x, y


def _check_variance(variance: float, mean: np.ndarray) -> None:
    if not np.isfinite(variance):
        raise InputError(
            "features that are not finite, so the network diverged: train it again "
            "with a lower config.optimizer.learning_rate"
        )
    # The mean of equal numbers has a rounding error.
    if variance <= 1e-24 * np.sum(mean**2):
        raise InputError(
            "features that are the same for all examples, so that nothing correlates: "
            "give other clips, or another layer"
        )
