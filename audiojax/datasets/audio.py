"""Sound files of any format to mono 16-bit samples at one rate, many at once."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import soxr

from audiojax.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

# 16-bit steps in full scale.
FULL_SCALE = 32768
# Lossy formats overshoot full scale a little and are clipped; what is far above it was
# scaled wrongly, and clipping would destroy it.
LOUDEST = 8.0
# A length above this is a program's way of saying that it could not know the length.
UNKNOWN_LENGTH = 0x7FFF0000
# libsndfile takes a cut file for a shorter one and only notes it in its log: the size
# in the header of the chunk that holds the samples (WAV, AIFF, AU), then the true one.
SHORTENED = re.compile(r"(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)")
# An Ogg page is at most this long; the flag marks the last page of a stream.
OGG_PAGE = 65307
OGG_LAST_PAGE = 4


def read(path: Path, sample_rate: int) -> np.ndarray:
    """Reads a sound file: channels averaged, then resampled with soxr.

    Args:
        path: any format that libsndfile knows: WAV, FLAC, Ogg, MP3, AIFF, ...
        sample_rate: of the result, in Hz.

    Returns:
        int16 [T]. A mono file of 16 bits and that rate is returned as it is stored.

    Raises:
        InputError: if the file is unreadable, empty or cut off, or holds samples that
            are not numbers or far above full scale.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames, whole = file.samplerate, file.frames, _is_whole(file, path)
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a readable sound file ({error})") from error
    if not whole or len(samples) < frames:
        raise InputError(
            f"{path} is cut off: it ends after {len(samples) / rate:.3f} seconds, "
            "before the end that its header tells of"
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{path} has samples that are not finite numbers")
    if np.abs(samples).max(initial=0) > LOUDEST:
        raise InputError(
            f"{path} has samples up to {np.abs(samples).max():.6g}; full scale is 1"
        )
    # The mean over one channel is slow for what it does.
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    if not len(mono):
        raise InputError(f"{path} is empty: it holds no samples")
    return np.rint(mono * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _is_whole(file: soundfile.SoundFile, path: Path) -> bool:
    """Whether a file is as long as its headers say, as far as they do."""
    if file.format == "OGG":
        return _ends(path)
    shortened = SHORTENED.search(file.extra_info)
    if shortened is None:
        return True
    declared, present = map(int, shortened.groups())
    return not present < declared < UNKNOWN_LENGTH


def _ends(path: Path) -> bool:
    """Whether the last page of an Ogg file is the last of its stream."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - OGG_PAGE, 0))
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page >= 0 and bool(tail[page + 5] & OGG_LAST_PAGE)


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map` by threads, in order, and never far ahead of who takes the results."""
    workers = os.cpu_count() or 1
    items = iter(items)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        pending = collections.deque(
            pool.submit(function, item) for item in itertools.islice(items, 4 * workers)
        )
        while pending:
            result = pending.popleft().result()
            pending.extend(
                pool.submit(function, item) for item in itertools.islice(items, 1)
            )
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def problems(paths: Iterable[Path], sample_rate: int) -> list[str]:
    """What `read` has to say against each of the files that it refuses."""

    def problem(path: Path) -> str | None:
        try:
            read(path, sample_rate)
        except InputError as error:
            return str(error)
        return None

    return [text for text in in_parallel(problem, paths) if text is not None]
