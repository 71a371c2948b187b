"""Means and maxima, the latter in the form that suits the machine.

XLA finds the gradient of a pooled maximum by pooling pairs of values and places, which
on the CPU takes as long as a stage of the network. There the maximum is one of shifted
images.
"""

from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiojax.models.forms import Axis, Window, at_least_float32, form


def avg_pool(image: jax.Array, kernel: int, stride: int, padding: int = 0) -> jax.Array:
    """Mean over squares of the image [B,H,W,C]; padded zeros count, as in PyTorch."""
    return nn.avg_pool(image, (kernel, kernel), (stride, stride), _sides(padding))


def max_pool(image: jax.Array, kernel: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over squares of the image [B,H,W,C]; the padding is minus infinity.

    The gradient goes to the first of several equal maxima.
    """
    if form() == "cpu":
        sizes = image.shape[1:3]
        axes = (Axis(size, kernel, stride, padding, padding) for size in sizes)
        return _max_pool(Window(*axes), image)
    return nn.max_pool(image, (kernel, kernel), (stride, stride), _sides(padding))


def _sides(padding: int) -> Any:
    # Flax takes it, and its annotation says it does not.
    return ((padding, padding), (padding, padding))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_pool(window: Window, image: jax.Array) -> jax.Array:
    padded = window.pad(image, -jnp.inf)
    return reduce(jnp.maximum, (window.shifted(padded, tap) for tap in window.taps))


def _backward(
    window: Window, image: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    padded = window.pad(image, -jnp.inf)
    most = window.shifted(padded, window.taps[0])
    # Numbers of taps, in float32, of which XLA makes the faster code.
    winner = jnp.zeros(most.shape, jnp.float32)
    for number, tap in enumerate(window.taps):
        pixels = window.shifted(padded, tap)
        winner = jnp.where(pixels > most, number, winner)
        most = jnp.maximum(pixels, most)

    def term(tap: tuple[int, int], gradient: jax.Array, winner: jax.Array) -> jax.Array:
        return jnp.where(winner == window.taps.index(tap), gradient, 0)

    to_image = window.gather(term, at_least_float32(gradient), winner)
    return (to_image.astype(image.dtype),)


_max_pool.defvjp(lambda window, image: (_max_pool(window, image), image), _backward)
