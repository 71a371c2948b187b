"""Sound files of any format to mono 16-bit samples at one rate, many at once."""

from __future__ import annotations

import collections
import concurrent.futures
import io
import itertools
import os
import re
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import soundfile
import soxr
from etils import epath

from audiojax.clips import INT16_FULL_SCALE
from audiojax.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

# Lossy formats overshoot full scale a little and are clipped; what is far above it was
# scaled wrongly, and clipping would destroy it.
LOUDEST = 8.0
# Three samples in a row this near full scale tell of clipping; 8 bits end at 0.992.
CLIPPED = 0.99
# A program that streams a WAV file can't come back to write its length, and claims the
# most instead, or a little less: sox 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF.
# Such a file is as long as it is. Any other claim was written by who knew the length,
# so what is missing has been cut off, be it of 1, 2 or 3 GB.
UNKNOWN_LENGTHS = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
# libsndfile's number of frames where a FLAC header says that it is not known.
UNKNOWN_FRAMES = 2**63 - 1
# Samples that a byte can stand for: in FLAC, silence of 65535 samples of 8 channels
# takes some 40 bytes, and no other format packs as much. A header that claims more is
# not believed, or memory would be asked for that no machine has.
SAMPLES_PER_BYTE = 1 << 14
# In Hz; a header with less is damaged, and resampling would make it a sound of hours.
LEAST_RATE = 100
# libsndfile takes a cut file for a shorter one and only notes it in its log: the size
# in the header of the chunk that holds the samples (WAV, AIFF, AU), then the true one.
SHORTENED = re.compile(r"(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)")
# An Ogg page is at most this long; the flag marks the last page of a stream.
OGG_PAGE = 65307
OGG_LAST_PAGE = 4


class Sound(NamedTuple):
    """What was read.

    Attributes:
        samples: int16 [T].
        clipped: whether some channel was cut at full scale before it was stored.
        loud: whether it was stored as floating point numbers, some of them above full
            scale: these are cut here.
    """

    samples: np.ndarray
    clipped: bool
    loud: bool


def read(path: os.PathLike[str], sample_rate: int) -> np.ndarray:
    """The samples that `decode` gives: int16 [T]."""
    return decode(path, sample_rate).samples


def decode(path: os.PathLike[str], sample_rate: int) -> Sound:
    """Reads a sound file: channels averaged, then resampled with soxr.

    Args:
        path: any format that libsndfile knows: WAV, FLAC, Ogg, MP3, AIFF, ...
        sample_rate: of the result, in Hz.

    Returns:
        The sound, of at least one sample. A mono file of 16 bits and that rate is
        returned as it is stored.

    Raises:
        InputError: if the file is unreadable, empty or cut off, or holds samples that
            are not numbers or far above full scale; also for whatever else the
            decoder raises, which is this file's problem and no other's.
    """
    try:
        return _decoded(path, sample_rate)
    except InputError:
        raise
    except Exception as error:  # a MemoryError has no words of its own
        raise InputError(
            f"{path} is not a readable sound file ({str(error) or repr(error)})"
        ) from error


def _decoded(path: os.PathLike[str], sample_rate: int) -> Sound:
    raw = _opened(path)
    size = len(raw.getvalue()) if isinstance(raw, io.BytesIO) else os.path.getsize(raw)
    with soundfile.SoundFile(raw) as file:
        rate, frames, whole = file.samplerate, file.frames, _is_whole(file, raw)
        floating = file.subtype in ("FLOAT", "DOUBLE")
        if frames == UNKNOWN_FRAMES:
            raise InputError(
                f"{path} does not tell how long it is, as a FLAC file that was "
                "streamed; write it anew as a file"
            )
        if rate < LEAST_RATE:
            raise InputError(
                f"{path} has {rate} samples a second; {LEAST_RATE} are the least"
            )
        if frames * file.channels > SAMPLES_PER_BYTE * size:
            raise InputError(
                f"{path} is cut off: its header tells of {frames / rate:.0f} seconds, "
                f"which {size} bytes can't hold"
            )
        samples = file.read(dtype="float32", always_2d=True)
    if not whole or len(samples) < frames:
        raise InputError(
            f"{path} is cut off: it ends after {len(samples) / rate:.3f} seconds, "
            "before the end that its header tells of"
        )
    if not len(samples):
        raise InputError(f"{path} is empty: it holds no samples")
    peak = max(samples.max(), -samples.min())
    if not np.isfinite(peak):
        raise InputError(f"{path} has samples that are not finite numbers")
    if peak > LOUDEST:
        raise InputError(f"{path} has samples up to {peak:.6g}; full scale is 1")
    # The mean over one channel is slow for what it does.
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate != sample_rate:
        # Of less than half a sample soxr leaves none; no clip is lost.
        resampled = soxr.resample(mono, rate, sample_rate)
        mono = resampled if len(resampled) else mono[:1]
    full = INT16_FULL_SCALE
    steps = np.rint(mono * full).clip(-full, full - 1)
    return Sound(
        steps.astype(np.int16),
        clipped=bool(peak >= CLIPPED) and _has_runs(samples),
        loud=floating and bool(peak > 1),
    )


def _opened(path: os.PathLike[str]) -> Any:
    """What libsndfile reads: a file of this machine by name, another's content."""
    name = os.fspath(path)
    if "://" in name:
        return io.BytesIO(epath.Path(name).read_bytes())
    return os.fsencode(name)  # there are names that are no text


def _has_runs(samples: np.ndarray) -> bool:
    """Whether three samples [T, channels] in a row are near full scale on one side."""
    sides = samples >= CLIPPED, samples <= -CLIPPED
    return any((side[:-2] & side[1:-1] & side[2:]).any() for side in sides)


def _is_whole(file: soundfile.SoundFile, raw: Any) -> bool:
    """Whether a file is as long as its headers say, as far as they do."""
    if file.format == "OGG":
        return _ends(raw)
    shortened = SHORTENED.search(file.extra_info)
    if shortened is None:
        return True
    declared, present = map(int, shortened.groups())
    unknown = any(declared in lengths for lengths in UNKNOWN_LENGTHS)
    return unknown or declared <= present


def _ends(raw: Any) -> bool:
    """Whether the last page of an Ogg file is the last of its stream."""
    if isinstance(raw, io.BytesIO):
        tail = raw.getvalue()[-OGG_PAGE:]
    else:
        with open(raw, "rb") as file:
            file.seek(max(os.path.getsize(raw) - OGG_PAGE, 0))
            tail = file.read()
    page = tail.rfind(b"OggS")
    return page >= 0 and bool(tail[page + 5] & OGG_LAST_PAGE)


def in_parallel(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int = os.cpu_count() or 1,
    ahead: int | None = None,
) -> Generator[R]:
    """`map` by threads, in order, which begin now and not when the first is asked for.

    Args:
        function: to call with each of the items.
        items: taken as they are needed.
        workers: how many threads.
        ahead: the most results that are waiting or under way; four a thread if None.
    """
    items = iter(items)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    pending = collections.deque(
        pool.submit(function, item)
        for item in itertools.islice(items, ahead or 4 * workers)
    )

    def results() -> Generator[R]:
        try:
            while pending:
                result = pending.popleft().result()
                for item in itertools.islice(items, 1):
                    pending.append(pool.submit(function, item))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)

    return results()
