"""Normalization by the batch, with its gradient written out.

Left to JAX, the gradient would keep several images the size of its argument; this one
keeps the argument alone, which on the CPU is worth a third of a training step.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from audiojax.models.forms import form, total

# Image, mean and variance.
Normalized = tuple[jax.Array, jax.Array, jax.Array]
# Image, mean, one over the standard deviation, scale.
_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

# How many parts of a batch the CPU adds up in one pass over their pixels.
_PARTS = 8


def normalize(
    image: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: str | None,
) -> Normalized:
    """Normalizes by the mean and the biased variance of each channel.

    The variance is the mean square of deviations, which loses no digits where the mean
    is large. No gradient passes through the statistics that are given back.

    Args:
        image: [B,H,W,C].
        scale: factors [C] of the normalized image, float32.
        bias: added to it, [C], float32.
        epsilon: added to the variance.
        axis_name: device axis over which the batch is spread, or None.

    Returns:
        The image, mean [C] and variance [C], all float32.
    """
    return _normalize(epsilon, axis_name, image, scale, bias)


def affine(
    image: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array
) -> jax.Array:
    """`(image - mean) * factor + bias` by channels, float32."""
    return _deviation(image, mean) * _channels(factor) + _channels(bias)


def _forward(
    epsilon: float,
    axis_name: str | None,
    image: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
) -> tuple[Normalized, _Saved]:
    """What `normalize` gives, and what its gradient needs."""
    count = image.size // image.shape[-1]

    def average(term: Callable[[jax.Array], jax.Array]) -> jax.Array:
        (local,) = _sums(lambda part: (term(part.astype(jnp.float32)),), image)
        return (local if axis_name is None else lax.pmean(local, axis_name)) / count

    mean = average(lambda image: image)
    # The negative mean is added, rather than the mean subtracted as below: were the two
    # one expression, XLA would store it, the size of the image, for its second use.
    var = average(lambda image: jnp.square(image + _channels(-mean)))
    rate = lax.rsqrt(var + epsilon)
    normalized = affine(image, mean, rate * scale, bias)
    return (normalized, mean, var), (image, mean, rate, scale)


def _backward(
    epsilon: float, axis_name: str | None, saved: _Saved, gradients: Normalized
) -> tuple[jax.Array, jax.Array, jax.Array]:
    image, mean, rate, scale = saved
    gradient = gradients[0]

    def terms(image: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return gradient * _deviation(image, mean), gradient

    product, plain = _sums(terms, image, gradient)
    to_scale, to_bias = product * rate, plain
    if axis_name is not None:
        product, plain = lax.pmean((product, plain), axis_name)
    count = image.size // image.shape[-1]
    slope, level = product * jnp.square(rate) / count, plain / count
    along = _deviation(image, mean) * _channels(slope)
    to_image = (gradient - _channels(level) - along) * _channels(rate * scale)
    return to_image.astype(image.dtype), to_scale, to_bias


def _first(*arguments: Any) -> Normalized:
    return _forward(*arguments)[0]


_normalize = jax.custom_vjp(_first, nondiff_argnums=(0, 1))
_normalize.defvjp(_forward, _backward)


def _sums(
    terms: Callable[..., tuple[jax.Array, ...]], *images: jax.Array
) -> tuple[jax.Array, ...]:
    """The sum [C] over all pixels of each image that `terms` makes of the images.

    XLA's own sum takes long on the CPU, and stores each image whole before. There the
    images of parts of the batch are added first, and a matrix product with ones does
    the rest.
    """
    if form() == "native":
        return tuple(jnp.sum(image, (0, 1, 2)) for image in terms(*images))
    batch = len(images[0])
    length = batch // math.gcd(batch, _PARTS)
    parts = [
        terms(*(image[start : start + length] for image in images))
        for start in range(0, batch, length)
    ]
    return tuple(_sum(total(part)) for part in zip(*parts, strict=True))


def _sum(image: jax.Array) -> jax.Array:
    pixels = image.reshape(-1, image.shape[-1])
    # Two rows, so that XLA calls its library, which adds in blocks: ten times as exact.
    return (jnp.ones((2, len(pixels)), pixels.dtype) @ pixels)[0]


def _deviation(image: jax.Array, mean: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) - _channels(mean)


def _channels(vector: jax.Array) -> jax.Array:
    """A vector [C] as [1,1,1,C]: ranks are never promoted silently."""
    return vector[None, None, None, :]
