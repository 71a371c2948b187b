"""What every data set is asked, and what it gives: clips' names, labels and audio."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from audiojax import task as tasks
from audiojax.clips import INT16_FULL_SCALE
from audiojax.errors import InputError
from audiojax.fingerprint import Fingerprint
from audiojax.task import Task

SPLITS = (None, "stratified", "random")
ON_BAD_FILE = ("error", "skip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a data set may be asked; what does not concern it is left as it is.

    Attributes:
        source_dir: the folder with the original files, or None to download them.
        data_dir: the folder for prepared data, or None for the default:
            $AUDIOJAX_DATA_DIR, or audiojax/ in $XDG_CACHE_HOME or ~/.cache.
        sample_rate: of the audio wanted, in Hz.
        seed: of data sets that are made by code, and of folds that are made.
        split: None for the data set's own folds; "stratified" for folds with the same
            shares of every class, the clips of a recording together; "random" for folds
            that take no notice of recordings.
        num_folds: how many folds are made, where they are made.
        split_dir: a folder with published lists of clips, where a data set has such.
        on_bad_file: "error", or "skip" to leave out files that can't be used.
        allow_leaks: go on where training and test share a recording or a file.

    Raises:
        InputError: for a choice that does not exist, or a number out of range.
    """

    source_dir: str | None = None
    data_dir: str | None = None
    sample_rate: int
    seed: int = 0
    split: str | None = None
    num_folds: int = 5
    split_dir: str | None = None
    on_bad_file: str = "error"
    allow_leaks: bool = False

    def __post_init__(self):
        for name, known in (("split", SPLITS), ("on_bad_file", ON_BAD_FILE)):
            if (value := getattr(self, name)) not in known:
                choices = ", ".join(map(repr, known))
                raise InputError(
                    f"config.data.{name} is {value!r}; give one of {choices}"
                )
        for name, least in (("sample_rate", 1), ("seed", 0), ("num_folds", 2)):
            if (value := getattr(self, name)) < least:
                raise InputError(f"{name} is {value}; give at least {least}")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One labeled clip.

    Attributes:
        filename: unique within the data set.
        labels: class numbers, from 0: one, unless the data set is multi-label.
        fold: the part of the data set it stands in, from 1.
        source: the recording it was cut from; clips of one recording sound alike.
        path: where its sound file lies; None for what is not read from files.
    """

    filename: str
    labels: tuple[int, ...]
    fold: int
    source: str
    path: os.PathLike[str] | None = None

    @property
    def label(self) -> int:
        """The only label.

        Raises:
            ValueError: if there is not exactly one.
        """
        (label,) = self.labels
        return label


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
        multi_label: whether a clip may have several labels, or none.
        official_folds: whether the folds are the publisher's; False for made ones.
        report: what was noticed while files were found and read, in words of JSON.
        known_broken: file names that are known to be broken as published: left out
            with a warning if they can't be read, whatever `Settings.on_bad_file` says.
        description: of the data set, in a sentence.
        homepage: of the data set, an address.
    """

    name: str
    classes: tuple[str, ...]
    sample_rate: int
    clips: tuple[Clip, ...]
    shared_sources: tuple[str, ...] = ()
    multi_label: bool = False
    official_folds: bool = True
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    known_broken: tuple[str, ...] = ()
    description: str = ""
    homepage: str = ""

    @property
    def folds(self) -> tuple[int, ...]:
        """The fold numbers that occur, in order."""
        return tuple(sorted({clip.fold for clip in self.clips}))

    @property
    def task(self) -> Task:
        """What labels mean."""
        return tasks.of(self.multi_label)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings:
    """Random access to a data set's audio.

    Attributes:
        info: names, labels and folds.
        digests: of each clip a sum of its samples, as they are at that rate.
        lengths: [N] length of each clip in samples.
        read: gives a clip's samples [T] of type `dtype`; safe to call from several
            threads at once.
        in_memory: whether `read` opens no file; batches then need no TensorFlow.
        dtype: of the samples as they are kept: float32 in [-1, 1], or int16.
    """

    info: Info
    digests: Sequence[str]
    lengths: np.ndarray
    read: Callable[[int], np.ndarray]
    in_memory: bool = False
    dtype: type[np.generic] = np.float32

    def __len__(self) -> int:
        return len(self.info.clips)

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """The exact content, labels and folds included; not where it lies."""
        info = self.info
        clips = tuple(
            (clip.filename, _names(info, clip), clip.fold, clip.source, digest)
            for clip, digest in zip(info.clips, self.digests, strict=True)
        )
        return Fingerprint(info.name, info.sample_rate, info.classes, clips)

    @property
    def num_samples(self) -> int:
        """Length in samples of the longest clip."""
        return int(self.lengths.max())

    def audio(self, index: int) -> np.ndarray:
        """Samples of clip number `index`: float32 [T] in [-1, 1].

        Raises:
            IndexError: if there is no such clip.
        """
        samples = self.samples(index)
        if samples.dtype == np.int16:
            samples = samples.astype(np.float32) / np.float32(INT16_FULL_SCALE)
        return samples

    def samples(self, index: int) -> np.ndarray:
        """The same as they are kept: [T] of type `dtype`.

        Raises:
            IndexError: if there is no such clip.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {self.info.name}, which has {len(self)}")
        return self.read(int(index))


def _names(info: Info, clip: Clip) -> tuple[str, ...]:
    return tuple(info.classes[label] for label in clip.labels)
