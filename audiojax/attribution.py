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
    """Steps from the baseline, 0, to the input, 1.

    Attributes:
        edges: [steps + 1], where they begin and end.
        middles: [steps], where gradients are taken.
    """

    edges: np.ndarray
    middles: np.ndarray


def linear_path(steps: int = STEPS) -> Path:
    """Steps of one length."""
    edges, middles = _even(steps)
    return Path(edges, middles)


def geometric_path(steps: int = STEPS, ratio: float = 1e7) -> Path:
    """Even steps in the logarithm of one plus `ratio` times the position.

    For what is followed by a logarithm, as a waveform is: nearly all of a log-mel's
    change lies close to silence, where a linear path would hardly look.
    """
    growth = np.log1p(ratio)
    edges, middles = (np.expm1(growth * x) / ratio for x in _even(steps))
    return Path(edges, middles)


def _even(steps: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(steps + 1) / steps, (np.arange(steps) + 0.5) / steps


def integrated_gradients(
    score: Score, inputs: jax.Array, baseline: jax.Array, path: Path
) -> tuple[jax.Array, jax.Array]:
    """Integrated Gradients: Sundararajan, Taly, Yan 2017, arXiv 1703.01365.

    The gradient's mean on the straight line from `baseline` to `inputs`, times their
    difference. Its sum should be the difference of their scores, their axiom of
    completeness. On that line the gradient of a network with ReLUs jumps, so that
    thousands of steps may not be enough. But of each step the sum is known, for it is
    the score's own change: what the gradient in the middle misses of that is shared
    out over the step's attributions in proportion to their sizes. It goes to 0 as
    steps get shorter, and where the gradient is 0 nothing is added.

    Args:
        score: what is explained.
        inputs: one row, [...].
        baseline: what says nothing, [...].
        path: the steps on the line; their number is a multiple of `BATCH`.

    Returns:
        The attribution, as large as `inputs`, and what of its sum the gradients alone
        would have missed.
    """
    change = inputs - baseline

    def points(positions: jax.Array) -> jax.Array:
        return baseline[None] + _column(positions, inputs.ndim) * change[None]

    def part(chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        middle, length, rise = chunk
        found = _gradient(score, points(middle)) * change[None]
        found = found * _column(length, inputs.ndim)
        axes = tuple(range(1, found.ndim))
        missed, size = rise - found.sum(axis=axes), jnp.abs(found)
        total = size.sum(axis=axes)
        share = jnp.where(total > 0, missed / jnp.where(total > 0, total, 1), 0)
        found = found + _column(share, inputs.ndim) * size
        return found.sum(axis=0), missed.sum()

    steps = len(path.middles)
    edges = jnp.asarray(np.pad(path.edges, (0, BATCH - 1), "edge"), jnp.float32)
    scores = jax.lax.map(lambda x: score(points(x)), edges.reshape(-1, BATCH))
    rises = jnp.diff(scores.reshape(-1)[: steps + 1])
    chunks = path.middles, np.diff(path.edges), rises
    chunks = tuple(jnp.asarray(x, jnp.float32).reshape(-1, BATCH) for x in chunks)
    found, missed = jax.lax.map(part, chunks)
    return found.sum(axis=0), missed.sum()


def _column(numbers: jax.Array, ndim: int) -> jax.Array:
    """Numbers [B] as [B, 1, ...], to go with rows of so many dimensions."""
    return numbers.reshape(-1, *[1] * ndim)


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
