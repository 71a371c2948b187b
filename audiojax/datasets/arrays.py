"""Sounds that are in memory already, as NumPy arrays."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from audiojax import sounds
from audiojax.datasets import checks, splits
from audiojax.datasets.layouts.table import noted
from audiojax.datasets.recordings import Clip, Info, Recordings
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)

# Class names, and class numbers of each clip.
Labels = tuple[list[str], list[tuple[int, ...]]]


def from_arrays(
    audio: np.ndarray | Sequence[np.ndarray],
    label: Any,
    sample_rate: int,
    *,
    classes: Sequence[str] | None = None,
    fold: Sequence[int] | np.ndarray | None = None,
    group: Sequence[Any] | np.ndarray | None = None,
    filename: Sequence[str] | None = None,
    num_folds: int = 5,
    seed: int = 0,
    allow_leaks: bool = False,
) -> Recordings:
    """Makes a data set of arrays; TensorFlow is not needed, here or in training.

    The arrays are not copied: leave them as they are while the data set is used.

    Args:
        audio: [N, T], or N arrays of [T] or [T, channels] with any lengths. Floating
            point numbers have full scale 1; integers have that of their type. What
            is above it, up to 8 times, is used as it is, with a warning. Channels are
            averaged.
        label: of each clip: N names, or N class numbers, or [N, classes] with 0 and 1
            where a clip may have several classes or none.
        sample_rate: of the audio, in Hz. It is not resampled: set
            config.features.sample_rate to the same.
        classes: names by class number. Without them the names or numbers that occur,
            sorted; for [N, classes] the column numbers.
        fold: from 1, of each clip. Without it folds are made, stratified.
        group: of each clip, the recording it was cut from; clips of one recording stay
            together. Without it each clip is one of its own.
        filename: a name for each clip; without it `clip0`, `clip1` and so on.
        num_folds: how many folds are made.
        seed: of folds that are made.
        allow_leaks: only warn of folds that share a recording or the same samples.

    Raises:
        InputError: for arrays that are no audio, as many clips are named as are wrong;
            for labels, folds or names that do not fit them; or by `checks.check_info`.
    """
    if sample_rate < 1:
        raise InputError(f"sample_rate is {sample_rate}; give it in Hz, at least 1")
    clips = [np.asarray(clip) for clip in audio]
    if not clips:
        raise InputError("audio has no clips; give [N, T], or a list of arrays")
    names = _names(filename, len(clips))
    if problems := [
        f"{name} {wrong}"
        for name, clip in zip(names, clips, strict=True)
        if (wrong := sounds.unusable(clip))
    ]:
        raise InputError(
            f"{len(problems)} of {len(clips)} arrays are no audio: {listed(problems)}"
        )
    class_names, labels = _labels(label, classes, len(clips))
    sources = names if group is None else _text(group, "group", len(clips))
    folds = [1] * len(clips) if fold is None else _folds(fold, len(clips))
    info = Info(
        name="arrays",
        classes=tuple(class_names),
        sample_rate=sample_rate,
        clips=tuple(map(Clip, names, labels, folds, sources)),
        multi_label=np.ndim(label) == 2,
    )
    if fold is None:
        info = splits.made(info, num_folds, seed)
    peaks = map(sounds.array_peak, clips)
    loud = [name for name, peak in zip(names, peaks, strict=True) if peak > 1]
    above = "arrays are above full scale (1) and used as they are, not clipped"
    info = dataclasses.replace(info, report=noted(info.name, "loud", loud, above))
    digests = [_digest(clip) for clip in clips]
    checks.check_info(info, allow_leaks=allow_leaks)
    checks.check_copies(info, digests, allow_leaks=allow_leaks)
    return Recordings(
        info=info,
        digests=digests,
        lengths=np.array([len(clip) for clip in clips]),
        read=lambda index: sounds.mono(clips[index]),
        in_memory=True,
    )


def _digest(clip: np.ndarray) -> str:
    """A sum of an array's content."""
    digest = hashlib.sha256(f"{clip.dtype} {clip.shape}".encode())
    digest.update(np.ascontiguousarray(clip).data)
    return digest.hexdigest()


def _text(values: Any, what: str, n: int) -> list[str]:
    """One text for each of n clips."""
    if len(values) != n:
        raise InputError(f"there are {n} clips, but {what} has length {len(values)}")
    return list(map(str, values))


def _names(filename: Sequence[str] | None, n: int) -> list[str]:
    if filename is None:
        return [f"clip{i}" for i in range(n)]
    names = _text(filename, "filename", n)
    if len(set(names)) < n:
        twice = [name for name, k in collections.Counter(names).items() if k > 1]
        raise InputError(f"filename has names twice: {listed(twice)}; each is one clip")
    return names


def _folds(fold: Any, n: int) -> list[int]:
    folds = np.asarray(fold)
    if folds.shape != (n,) or folds.dtype.kind not in "iu" or folds.min(initial=1) < 1:
        raise InputError(
            f"fold has shape {folds.shape} and type {folds.dtype}"
            + (f", the least is {folds.min()}" if folds.dtype.kind in "iu" else "")
            + f"; give a whole number from 1 for each of {n} clips"
        )
    return folds.tolist()


def _labels(label: Any, classes: Sequence[str] | None, n: int) -> Labels:
    """Class names, and the class numbers of each of n clips."""
    try:
        labels = np.asarray(label)
    except ValueError as error:
        raise InputError(f"label is no array ({error}); see from_arrays") from error
    if labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(
            f"there are {n} clips, but label has shape {labels.shape}; give [N] names "
            "or numbers, or [N, classes] with 0 and 1"
        )
    if labels.ndim == 2:
        return _from_columns(labels, classes)
    values = labels.tolist()
    named = all(isinstance(value, str) for value in values)
    if not named and labels.dtype.kind not in "iu":
        raise InputError(
            f"label has type {labels.dtype}; give names, or numbers of an integer type"
        )
    if classes is None:
        known = sorted(set(values))
        return [str(value) for value in known], [(known.index(x),) for x in values]
    names = list(classes)
    if named:
        if strange := sorted(set(values) - set(names)):
            raise InputError(f"label names {listed(strange)}; classes has {names}")
        return names, [(names.index(value),) for value in values]
    if min(values, default=0) < 0 or max(values, default=0) >= len(names):
        raise InputError(
            f"label has numbers from {min(values)} to {max(values)}, but there are "
            f"{len(names)} classes, which count from 0"
        )
    return names, [(value,) for value in values]


def _from_columns(labels: np.ndarray, classes: Sequence[str] | None) -> Labels:
    """As `_labels`, from [N, classes] with 0 and 1."""
    names = [str(i) for i in range(labels.shape[1])] if classes is None else classes
    if len(names) != labels.shape[1] or not np.isin(labels, (0, 1)).all():
        strange = np.setdiff1d(labels, (0, 1))[:3].tolist()
        raise InputError(
            f"label has shape {labels.shape}"
            + (f" and values like {', '.join(map(repr, strange))}" if strange else "")
            + f"; give 0 and 1, one column for each of {len(names)} classes"
        )
    if (labels.sum(axis=1) == 1).all():
        logger.warning(
            "label has a 1 in each row: it is taken for several labels a clip, of "
            "which each has one; for one class a clip give label.argmax(axis=1)"
        )
    return list(names), [tuple(np.flatnonzero(row).tolist()) for row in labels]
