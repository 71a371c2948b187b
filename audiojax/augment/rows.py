"""A batch as changes see it, and what they draw with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax


class Rows(NamedTuple):
    """The rows of a batch that one device has.

    Attributes:
        values: audio [B, T], or images [B, mel, frames, C].
        length: int32 [B], samples of a row of audio that are the clip's own.
        targets: float32 [B, classes], shares of the classes.
        active: bool [B], which rows are to be changed.
    """

    values: jax.Array
    length: jax.Array
    targets: jax.Array
    active: jax.Array

    def with_audio(self, audio: jax.Array, length: jax.Array | None = None) -> Rows:
        """The rows with other audio, and other lengths if they are given."""
        return self._replace(
            values=audio, length=self.length if length is None else length
        )


class Draw(NamedTuple):
    """What a change draws with.

    Attributes:
        keys: [B], each decides all that is random about its row.
        key: decides what is drawn for the batch as a whole, the same on every device.
        axis_name: the device axis that shares the batch, or None.
    """

    keys: jax.Array
    key: jax.Array
    axis_name: str | None


Change = Callable[[Draw, Rows], Rows]
