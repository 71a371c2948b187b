"""Which form of an operation suits the machine, and what the CPU's forms are made of.

An accelerator gets XLA's own operations. On the CPU some of them are slow, most of all
in their gradients, and forms built of shifted images take their place: the pixels that
one tap of a window meets, over all positions of the window, are a slice of the padded
image, and XLA compiles a sum of slices to one pass over the image.

All forms give the same numbers but for rounding. `form` is the one place that chooses.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Form = Literal["native", "cpu"]

# What to choose while a program is traced for elsewhere: `with forced("native"):`.
# A context of JAX's, so that nothing compiled under one choice is used under another.
forced = jax.make_user_context(None)


def form() -> Form:
    """The form to trace: what `forced` says, or else what suits the default device."""
    if forced.value is not None:
        return forced.value
    return "cpu" if jax.default_backend() == "cpu" else "native"


class Axis(NamedTuple):
    """The positions of a window along rows or columns.

    Output o meets input `o * step + tap - before` for each tap.
    """

    size: int
    taps: int
    step: int
    before: int
    after: int

    @property
    def outputs(self) -> int:
        """How many positions there are."""
        return (self.before + self.size + self.after - self.taps) // self.step + 1


class Window(NamedTuple):
    """A window that is moved over an image."""

    rows: Axis
    columns: Axis

    @property
    def taps(self) -> list[tuple[int, int]]:
        """Row and column of each tap."""
        return [(i, j) for i in range(self.rows.taps) for j in range(self.columns.taps)]

    def pad(self, image: jax.Array, value: float = 0.0) -> jax.Array:
        """The image with the value around it that the window reaches."""
        return _framed(image, [(axis.before, axis.after) for axis in self], value)

    def shifted(self, padded: jax.Array, tap: tuple[int, int]) -> jax.Array:
        """The pixels [B,H',W',C] that a tap reads."""
        size = (self.rows.outputs, self.columns.outputs)
        return _pixels(padded, tap, size, (self.rows.step, self.columns.step))

    def gather(self, term: Callable[..., jax.Array], *outputs: jax.Array) -> jax.Array:
        """An image [B,H,W,C], each pixel the sum over the taps that meet it.

        The pixels between two steps of the window are each a sum of shifted outputs.
        So the outputs need not be spread out with zeros in between, as in the textbook.

        Args:
            term: takes a tap and of each of `outputs` those [B,h,w,C] that meet pixels
                for it, and gives the terms [B,h,w,C] of these pixels. It must give
                zeros for zeros.
            *outputs: [B,H',W',C].
        """
        phases = [_phases(axis) for axis in self]
        # More rows than there are outputs, so that every shift reaches into the frame:
        # one within would be cut from what makes the outputs, and that computed again.
        counts = (
            max(-(-self.rows.size // self.rows.step), self.rows.outputs + 1),
            -(-self.columns.size // self.columns.step),
        )
        # Frame the outputs with zeros, or cut them, so that no shift leaves them.
        lows = [-min((o for p in ps for _, o in p), default=0) for ps in phases]
        highs = [max((o for p in ps for _, o in p), default=0) for ps in phases]
        frame = [
            (low, high + count - axis.outputs)
            for low, high, count, axis in zip(lows, highs, counts, self, strict=True)
        ]
        framed = [_framed(output, frame) for output in outputs]
        batch, *_, channels = outputs[0].shape
        nothing = jnp.zeros((batch, *counts, channels), outputs[0].dtype)

        def pixels(row_phase: _Phase, column_phase: _Phase) -> jax.Array:
            terms = [
                term(
                    (row, column),
                    *(
                        _pixels(output, (top + lows[0], left + lows[1]), counts)
                        for output in framed
                    ),
                )
                for row, top in row_phase
                for column, left in column_phase
            ]
            return total(terms) if terms else nothing

        # [B,h,step,w,step,C], which holds the image.
        every = jnp.stack(
            [jnp.stack([pixels(r, c) for c in phases[1]], 3) for r in phases[0]], 2
        )
        size = (counts[0] * self.rows.step, counts[1] * self.columns.step)
        whole = every.reshape(batch, *size, channels)
        return whole[:, : self.rows.size, : self.columns.size]


# The taps that a pixel meets, each with the output that it meets the tap for.
_Phase = list[tuple[int, int]]


def _phases(axis: Axis) -> list[_Phase]:
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


def _framed(
    image: jax.Array, sides: list[tuple[int, int]], value: float = 0.0
) -> jax.Array:
    """With the value added before and after rows and columns; cut where negative."""
    rows, columns = ((before, after, 0) for before, after in sides)
    fill = jnp.asarray(value, image.dtype)
    return lax.pad(image, fill, ((0, 0, 0), rows, columns, (0, 0, 0)))


def _pixels(
    image: jax.Array,
    start: tuple[int, int],
    size: tuple[int, int],
    steps: tuple[int, int] = (1, 1),
) -> jax.Array:
    bottom = start[0] + (size[0] - 1) * steps[0] + 1
    right = start[1] + (size[1] - 1) * steps[1] + 1
    limits = (len(image), bottom, right, image.shape[-1])
    return lax.slice(image, (0, *start, 0), limits, (1, *steps, 1))


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """The terms added from left to right, with no zero to start from."""
    return reduce(lambda some, term: some + term, terms)


def at_least_float32(array: jax.Array) -> jax.Array:
    """At least float32, to add in."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
