"""Convolution in the form that suits the machine.

An accelerator gets XLA's own convolution. On the CPU that one is slow where it is
grouped, and everywhere in its gradient, so there

- a 1x1 convolution is a matrix product of pixels and channels;
- a depthwise convolution is a sum of shifted images, each times its tap of the kernel,
  which XLA compiles to one pass over the image, and so are both its gradients.

All forms give the same numbers but for rounding. `form` is the one place that chooses.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial, reduce
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Form = Literal["native", "cpu"]

# What to choose while a program is traced for elsewhere: `with forced("native"):`.
# A context of JAX's, so that nothing compiled under one choice is used under another.
forced = jax.make_user_context(None)

# How many images the gradient of a depthwise kernel adds up in one pass over their
# pixels. More would store less, but leave the cache.
_PART = 8


def form() -> Form:
    """The form to trace: what `forced` says, or else what suits the default device."""
    if forced.value is not None:
        return forced.value
    return "cpu" if jax.default_backend() == "cpu" else "native"


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
        rows, columns = (
            _Axis(sizes[i], taps[i], stride[i], *padding[i]) for i in range(2)
        )
        if groups == 1 and rows.is_pointwise and columns.is_pointwise:
            return _pointwise(image[:, :: stride[0], :: stride[1]], kernel[0, 0])
        if groups == image.shape[-1] == kernel.shape[-1]:
            return _depthwise(rows, columns, image, kernel)
    return lax.conv_general_dilated(
        image,
        kernel,
        window_strides=stride,
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


class _Axis(NamedTuple):
    """A convolution along rows or columns.

    Output o meets input `o * step + tap - before` for each tap.
    """

    size: int
    taps: int
    step: int
    before: int
    after: int

    @property
    def outputs(self) -> int:
        return (self.before + self.size + self.after - self.taps) // self.step + 1

    @property
    def is_pointwise(self) -> bool:
        return self.taps == 1 and self.before == self.after == 0


def _pointwise(image: jax.Array, kernel: jax.Array) -> jax.Array:
    pixels = image.reshape(-1, image.shape[-1])
    return (pixels @ kernel).reshape(*image.shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _depthwise(
    rows: _Axis, columns: _Axis, image: jax.Array, kernel: jax.Array
) -> jax.Array:
    padded, wide = _pad(_wide(image), rows, columns), _wide(kernel)
    size, steps = (rows.outputs, columns.outputs), (rows.step, columns.step)
    total = _sum(
        _pixels(padded, (row, column), size, steps) * _tap(wide, row, column)
        for row in range(rows.taps)
        for column in range(columns.taps)
    )
    return total.astype(image.dtype)


def _depthwise_forward(
    rows: _Axis, columns: _Axis, image: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _depthwise(rows, columns, image, kernel), (image, kernel)


def _depthwise_backward(
    rows: _Axis,
    columns: _Axis,
    saved: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    image, kernel = saved
    gradient = _wide(gradient)
    to_image = _to_image(rows, columns, _wide(kernel), gradient)
    to_kernel = _to_kernel(rows, columns, _wide(image), gradient)
    return to_image.astype(image.dtype), to_kernel.astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)

# The taps that a pixel meets, each with the output that it meets the tap for.
_Phase = list[tuple[int, int]]


def _phases(axis: _Axis) -> list[_Phase]:
    """The taps and outputs that the first `step` pixels meet.

    Those of the pixel `n * step` further on are the same taps and outputs n further on.
    """
    return [
        [
            (tap, (pixel + axis.before - tap) // axis.step)
            for tap in range((pixel + axis.before) % axis.step, axis.taps, axis.step)
        ]
        for pixel in range(axis.step)
    ]


def _to_image(
    rows: _Axis, columns: _Axis, kernel: jax.Array, gradient: jax.Array
) -> jax.Array:
    """The gradient with respect to the image of a depthwise convolution.

    The pixels of one phase are a sum of shifted gradients. Taken apart so, a gradient
    of a convolution with steps need not be spread out with zeros in between.
    """
    phases = _phases(rows), _phases(columns)
    counts = (-(-rows.size // rows.step), -(-columns.size // columns.step))
    # Frame the gradient, or cut it, so that no shift leaves it.
    lows = [-min((o for p in ps for _, o in p), default=0) for ps in phases]
    highs = [max((o for p in ps for _, o in p), default=0) for ps in phases]
    frame = [
        (low, high + count - outputs, 0)
        for low, high, count, outputs in zip(
            lows, highs, counts, gradient.shape[1:3], strict=True
        )
    ]
    zero = jnp.zeros((), gradient.dtype)
    framed = lax.pad(gradient, zero, [(0, 0, 0), *frame, (0, 0, 0)])
    nothing = jnp.zeros((len(gradient), *counts, gradient.shape[-1]), gradient.dtype)

    def pixels(row_phase: _Phase, column_phase: _Phase) -> jax.Array:
        terms = [
            _pixels(framed, (top + lows[0], left + lows[1]), counts, (1, 1))
            * _tap(kernel, row, column)
            for row, top in row_phase
            for column, left in column_phase
        ]
        return _sum(terms) if terms else nothing

    # [B,H/step,step,W/step,step,C], the size rounded up.
    every = jnp.stack(
        [jnp.stack([pixels(r, c) for c in phases[1]], 3) for r in phases[0]], 2
    )
    size = (counts[0] * rows.step, counts[1] * columns.step)
    whole = every.reshape(len(gradient), *size, -1)
    return whole[:, : rows.size, : columns.size]


def _to_kernel(
    rows: _Axis, columns: _Axis, image: jax.Array, gradient: jax.Array
) -> jax.Array:
    """The gradient with respect to the kernel of a depthwise convolution.

    It goes through a few images at a time, in a loop, into which XLA can't pull what
    made the images, to repeat it for each tap. The sum over pixels is one for all taps:
    were each summed alone, every shifted image would be stored.
    """
    padded = _pad(image, rows, columns)
    batch, height, width, channels = gradient.shape
    length = math.gcd(batch, _PART)
    size, steps = (height, width), (rows.step, columns.step)
    taps = [(i, j) for i in range(rows.taps) for j in range(columns.taps)]

    def add_part(part: jax.Array, total: jax.Array) -> jax.Array:
        images, gradients = (
            lax.dynamic_slice_in_dim(array, part * length, length)
            for array in (padded, gradient)
        )
        products = [
            _sum(
                _pixels(images, tap, size, steps, (i, i + 1)) * gradients[i : i + 1]
                for i in range(length)
            )
            for tap in taps
        ]
        return total + jnp.stack(products).sum((1, 2, 3))

    zero = jnp.zeros((len(taps), channels), gradient.dtype)
    total = lax.fori_loop(0, batch // length, add_part, zero)
    return total.reshape(rows.taps, columns.taps, 1, channels)


def _pixels(
    image: jax.Array,
    start: tuple[int, int],
    size: tuple[int, int],
    steps: tuple[int, int],
    part: tuple[int, int] | None = None,
) -> jax.Array:
    """The `size` pixels from `start` on in steps, of a part of the batch or of all."""
    first, end = part or (0, len(image))
    bottom = start[0] + (size[0] - 1) * steps[0] + 1
    right = start[1] + (size[1] - 1) * steps[1] + 1
    limits = (end, bottom, right, image.shape[-1])
    return lax.slice(image, (first, *start, 0), limits, (1, *steps, 1))


def _pad(image: jax.Array, rows: _Axis, columns: _Axis) -> jax.Array:
    pads = [(0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)]
    return jnp.pad(image, pads)


def _tap(kernel: jax.Array, row: int, column: int) -> jax.Array:
    """The factors [1,1,1,C] of one tap of a depthwise kernel."""
    return kernel[None, None, None, row, column, 0]


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    """The terms added from left to right, with no zero to start from."""
    return reduce(lambda total, term: total + term, terms)


def _wide(array: jax.Array) -> jax.Array:
    """At least float32, to add in."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
