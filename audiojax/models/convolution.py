"""Convolution in the form that suits the machine.

XLA's own convolution is slow on the CPU where it is grouped, so there

- a 1x1 convolution is a matrix product of pixels and channels;
- a depthwise convolution is a sum of shifted images, each times its tap of the kernel,
  and so are both its gradients.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from audiojax.models.forms import Axis, Window, at_least_float32, form, total

# How many rows of pixels the gradient of a depthwise kernel adds up in one pass. With
# more they leave the cache.
_ROWS = 16


def convolve(
    image: jax.Array,
    kernel: jax.Array,
    stride: tuple[int, int],
    padding: str | Sequence[tuple[int, int]],
    groups: int = 1,
) -> jax.Array:
    """Convolution (without flipping the kernel) of an image [B,H,W,C].

    Args:
        image: [B,H,W,C].
        kernel: [h,w,C/groups,features], of the image's type.
        stride: steps of rows and columns.
        padding: zeros before and after, of rows and of columns, or "SAME" or "VALID".
        groups: parts of the channels that are convolved apart.

    Returns:
        Image [B,H',W',features] of the same type.
    """
    sizes, taps = image.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, taps, stride, padding)
    if form() == "cpu":
        if groups == 1 and taps == (1, 1) and not any(map(any, padding)):
            pixels = image[:, :: stride[0], :: stride[1]]
            product = pixels.reshape(-1, pixels.shape[-1]) @ kernel[0, 0]
            return product.reshape(*pixels.shape[:-1], -1)
        if groups == image.shape[-1] == kernel.shape[-1]:
            axes = (Axis(sizes[i], taps[i], stride[i], *padding[i]) for i in range(2))
            return _depthwise(Window(*axes), image, kernel)
    return lax.conv_general_dilated(
        image,
        kernel,
        window_strides=stride,
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(window: Window, image: jax.Array, kernel: jax.Array) -> jax.Array:
    padded = window.pad(at_least_float32(image))
    products = (
        window.shifted(padded, tap) * _factor(kernel, tap) for tap in window.taps
    )
    return total(products).astype(image.dtype)


def _depthwise_backward(
    window: Window, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    image, kernel = saved
    gradient = at_least_float32(gradient)
    to_image = window.gather(lambda tap, part: part * _factor(kernel, tap), gradient)
    to_kernel = _kernel_gradient(window, at_least_float32(image), gradient)
    return to_image.astype(image.dtype), to_kernel.astype(kernel.dtype)


_depthwise.defvjp(
    lambda window, *saved: (_depthwise(window, *saved), saved), _depthwise_backward
)


def _kernel_gradient(
    window: Window, image: jax.Array, gradient: jax.Array
) -> jax.Array:
    """The gradient with respect to the kernel of a depthwise convolution.

    It goes through a few rows at a time, in a loop, into which XLA can't pull what made
    the images, to repeat it for each tap. Columns and channels are one axis there, for
    over an axis before that one XLA adds whole vectors.
    """
    padded = window.pad(image)
    batch, rows, columns, channels = gradient.shape
    height = math.gcd(rows, _ROWS)
    count = math.gcd(batch, _ROWS // height)
    # A loop of one pass would be none.
    count = count // 2 if count == batch > 1 else count
    step, reach = window.rows.step, (height - 1) * window.rows.step + window.rows.taps
    part = window._replace(rows=Axis(reach, window.rows.taps, step, 0, 0))

    def add_part(number: jax.Array, so_far: jax.Array) -> jax.Array:
        first, top = number // (rows // height) * count, number % (rows // height)
        place, size = (first, top * height * step, 0, 0), padded.shape[2:]
        images = lax.dynamic_slice(padded, place, (count, reach, *size))
        place, size = (first, top * height, 0, 0), gradient.shape[2:]
        gradients = lax.dynamic_slice(gradient, place, (count, height, *size))
        products = [part.shifted(images, tap) * gradients for tap in window.taps]
        return so_far + jnp.stack(
            [of_tap.reshape(count * height, -1).sum(axis=0) for of_tap in products]
        )

    zero = jnp.zeros((len(window.taps), columns * channels), gradient.dtype)
    num_parts = batch // count * (rows // height)
    sums = lax.fori_loop(0, num_parts, add_part, zero)
    taps = window.rows.taps, window.columns.taps
    return sums.reshape(*taps, columns, channels).sum(axis=2)[:, :, None]


def _factor(kernel: jax.Array, tap: tuple[int, int]) -> jax.Array:
    """The factors [1,1,1,C] of one tap of a depthwise kernel."""
    return at_least_float32(kernel[None, None, None, *tap, 0])
