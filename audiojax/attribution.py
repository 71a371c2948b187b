"""What of an input a network's logit comes from, and what such a map is worth.

Methods take `score`, a function of a batch that gives one number a row, and know
nothing of sound. All are linear in it: the map of a mean of logits is the mean of maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

# [B, ...] to [B].
Score = Callable[[jax.Array], jax.Array]

# Rows whose gradient is computed at once; numbers of steps and samples are multiples.
BATCH = 8
STEPS, SAMPLES = 64, 32
# Standard deviation of SmoothGrad's noise, as a share of the input's range.
NOISE = 0.15


@dataclasses.dataclass(frozen=True)
class Path:
    """Where gradients are taken between the baseline, 0, and the input, 1.

    Attributes:
        positions: [steps].
        weights: [steps], of each gradient in the sum.
    """

    positions: np.ndarray
    weights: np.ndarray


def linear_path(steps: int = STEPS) -> Path:
    """Gauss and Legendre's places, whose sum is nearest to the integral."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    return Path(((places + 1) / 2).astype("f4"), (weights / 2).astype("f4"))


def geometric_path(steps: int = STEPS, ratio: float = 1e7) -> Path:
    """The same places in the logarithm of one plus `ratio` times the position.

    For what is followed by a logarithm, as a waveform is: nearly all of a log-mel's
    change lies close to silence, where a linear path would hardly look.
    """
    path, growth = linear_path(steps), np.log1p(ratio)
    exponents = growth * path.positions.astype(np.float64)
    positions = np.expm1(exponents) / ratio
    weights = growth * path.weights * np.exp(exponents) / ratio
    return Path(positions.astype("f4"), weights.astype("f4"))


def integrated_gradients(
    score: Score, inputs: jax.Array, baseline: jax.Array, path: Path
) -> jax.Array:
    """Integrated Gradients: Sundararajan, Taly, Yan 2017, arXiv 1703.01365.

    The gradient's mean on the straight line from `baseline` to `inputs`, times their
    difference. Its sum is the difference of their scores, up to the number of steps.

    Args:
        score: what is explained.
        inputs: one row, [...].
        baseline: what says nothing, [...].
        path: where on the line; a multiple of `BATCH` places.

    Returns:
        The attribution, as large as `inputs`.
    """
    change = inputs - baseline

    def part(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        position, weight = (x.reshape(-1, *[1] * inputs.ndim) for x in chunk)
        points = baseline[None] + position * change[None]
        return (weight * _gradient(score, points)).sum(axis=0)

    chunks = jnp.asarray(path.positions), jnp.asarray(path.weights)
    chunks = tuple(x.reshape(-1, BATCH) for x in chunks)
    return change * jax.lax.map(part, chunks).sum(axis=0)


def smooth_grad(
    score: Score, inputs: jax.Array, key: jax.Array, samples: int = SAMPLES
) -> jax.Array:
    """SmoothGrad: Smilkov et al. 2017, arXiv 1706.03825.

    The gradient's mean over `samples` noisy copies of `inputs` [...], whose noise is
    normal with `NOISE` times the range of the values; `samples` is a multiple of
    `BATCH`. Positive is where more would raise the score.
    """
    scale = NOISE * (inputs.max() - inputs.min())

    def part(key: jax.Array) -> jax.Array:
        noise = scale * jax.random.normal(key, (BATCH, *inputs.shape))
        return _gradient(score, inputs[None] + noise).sum(axis=0)

    parts = jax.lax.map(part, jax.random.split(key, samples // BATCH))
    return parts.sum(axis=0) / samples


def grad_cam(head: Score, maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Grad-CAM: Selvaraju et al. 2017, arXiv 1610.02391, before its last ReLU.

    That one follows after the mean over several networks.

    Args:
        head: what is explained, as a function of the last stage's output [B, H, W, F].
        maps: that output for one image, [H, W, F].
        size: of the image.

    Returns:
        The maps' sum, each weighted by its mean gradient, resized linearly: [*size].
    """
    weights = _gradient(head, maps[None])[0].mean(axis=(0, 1), keepdims=True)
    found = (weights * maps).sum(axis=-1).astype(jnp.float32)
    return jax.image.resize(found, size, "linear")


def _gradient(score: Score, batch: jax.Array) -> jax.Array:
    return jax.grad(lambda batch: score(batch).sum())(batch)


@dataclasses.dataclass(frozen=True)
class Curve:
    """How a probability falls or rises as pixels are changed.

    Attributes:
        probability: [shares], of the order of the map.
        random: [R, shares], of random orders.
    """

    probability: np.ndarray
    random: np.ndarray

    @property
    def area(self) -> float:
        """Under the curve, its mean height."""
        return float(area(self.probability))

    @property
    def random_area(self) -> float:
        """The mean of the random ones."""
        return float(area(self.random).mean())


def shares(count: int) -> np.ndarray:
    """Evenly from 0, no pixel, to 1, all: [count]."""
    return np.linspace(0, 1, count)


def area(curve: np.ndarray) -> np.ndarray:
    """Under curves [..., shares]."""
    return np.trapezoid(curve, shares(curve.shape[-1]), axis=-1)


def strongest(order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Masks [K, H, W] of those `counts` [K] pixels where `order` [H, W] is largest."""
    rank = np.empty(order.size, np.int64)
    rank[np.argsort(-order, axis=None, kind="stable")] = np.arange(order.size)
    return rank.reshape(order.shape)[None] < counts[:, None, None]


def curves(
    probability: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    baseline: np.ndarray,
    order: np.ndarray,
    key: jax.Array,
    num_shares: int = 17,
    num_random: int = 5,
) -> tuple[Curve, Curve]:
    """Deletion and insertion: Petsiuk, Das, Saenko 2018 (RISE), arXiv 1806.07421.

    Deletion puts the baseline in place of the first pixels, insertion the image's
    pixels into the baseline. A good map has a small area under the first curve and a
    large one under the second. What it is compared with are masks of the same size and
    the same grain: the map itself, rolled to random places in both directions.

    Args:
        probability: of the class, of images [H, W, C]: [B, H, W, C] to [B].
        image: [H, W, C].
        baseline: [H, W, C].
        order: [H, W], the map; the largest values are changed first.
        key: for the random places.
        num_shares: points of a curve.
        num_random: how many are compared with.

    Returns:
        The curves of deletion and of insertion.
    """
    rolls = jax.random.randint(key, (num_random, 2), 0, jnp.array([order.shape]))
    orders = [order, *(np.roll(order, tuple(roll), (0, 1)) for roll in np.array(rolls))]
    counts = np.rint(shares(num_shares) * order.size)
    found = []
    for one in orders:
        first = strongest(one, counts)[..., None]
        deleted = probability(np.where(first, baseline[None], image[None]))
        inserted = probability(np.where(first, image[None], baseline[None]))
        found.append((deleted, inserted))
    deletion, insertion = (np.stack(c) for c in zip(*found, strict=True))
    return Curve(deletion[0], deletion[1:]), Curve(insertion[0], insertion[1:])


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """How alike two maps are: the absolute rank correlation, from 0 to 1.

    For the sanity check of Adebayo et al. 2018 (arXiv 1810.03292), with `other` the
    map of the same network with its weights drawn anew. A map that is the same
    everywhere says nothing: it counts as like all others.
    """
    if np.ptp(one) == 0:
        return 1.0
    if np.ptp(other) == 0:
        return 0.0
    found: Any = stats.spearmanr(one.ravel(), other.ravel())
    return abs(float(found.statistic))
