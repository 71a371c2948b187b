"""What every data set gives: its clips' names, labels and folds, and their audio."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Clip:
    """One labelled clip.

    Attributes:
        filename: unique within the data set.
        label: class number, from 0.
        fold: the part of the data set it stands in, from 1.
        source: the recording it was cut from; clips of one recording sound alike.
    """

    filename: str
    label: int
    fold: int
    source: str


@dataclasses.dataclass(frozen=True)
class Info:
    """What is known of a data set before any audio is read.

    Attributes:
        name: as in `DATASETS`.
        classes: class names by label.
        sample_rate: of the audio given, in Hz.
        clips: by clip number.
        shared_sources: recordings that the publisher's own folds have on both sides.
            Results are comparable only if those folds are kept as they are.
    """

    name: str
    classes: tuple[str, ...]
    sample_rate: int
    clips: tuple[Clip, ...]
    shared_sources: tuple[str, ...] = ()

    @property
    def folds(self) -> tuple[int, ...]:
        """The fold numbers that occur, in order."""
        return tuple(sorted({clip.fold for clip in self.clips}))

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings:
    """Random access to a data set's audio.

    Attributes:
        info: names, labels and folds.
        fingerprint: a hex string that names the exact content, labels included.
        lengths: [N] length of each clip in samples.
        read: gives a clip's samples, float32 [T] in [-1, 1]; safe to call from several
            threads at once.
    """

    info: Info
    fingerprint: str
    lengths: np.ndarray
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.info.clips)

    @property
    def num_samples(self) -> int:
        """Length in samples of the longest clip."""
        return int(self.lengths.max())

    def audio(self, index: int) -> np.ndarray:
        """Samples of clip number `index`: float32 [T] in [-1, 1].

        Raises:
            IndexError: if there is no such clip.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {self.info.name}, which has {len(self)}")
        return self.read(int(index))


def listed(problems: Iterable[str], limit: int = 10) -> str:
    """The first problems as one phrase, and how many more there are."""
    problems = list(problems)
    more = len(problems) - limit
    return "; ".join(problems[:limit]) + (f"; and {more} more" if more > 0 else "")
