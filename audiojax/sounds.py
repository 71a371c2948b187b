"""Sounds of any format, rate and length as mono samples at one rate."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from etils import epath

from audiojax.clips import INT16_FULL_SCALE
from audiojax.errors import InputError

# What is taken for a sound by its name: what libsndfile reads, and other sounds, which
# it refuses; that is better than to pass them over.
SUFFIXES = (
    *(f".{name.lower()}" for name in soundfile.available_formats()),
    *(".wave", ".oga", ".opus", ".mp1", ".mp2", ".aif", ".aifc", ".snd", ".sph"),
    *(".aac", ".ac3", ".amr", ".ape", ".m4a", ".mka", ".mp4", ".webm", ".wma", ".wv"),
)
# Samples of a channel that are read at once.
BLOCK = 1 << 18
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


@dataclasses.dataclass(frozen=True)
class Content:
    """A sound file that came by another way than from a disk.

    Attributes:
        name: what to call it in messages.
        data: its bytes.
    """

    name: str
    data: bytes = dataclasses.field(repr=False)

    def __str__(self):
        return self.name


Source = os.PathLike[str] | Content


def read(path: Source, sample_rate: int) -> np.ndarray:
    """The samples that `decode` gives: int16 [T]."""
    return decode(path, sample_rate).samples


def decode(path: Source, sample_rate: int) -> Sound:
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
    stream = Stream(path, sample_rate)
    samples = np.concatenate([np.zeros(0, np.int16), *stream.blocks()])
    return Sound(samples, stream.clipped, stream.loud)


def full_scale(samples: np.ndarray) -> np.ndarray:
    """Stored samples, int16, as float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(INT16_FULL_SCALE)


class Stream:
    """A sound file that is read block by block, however long it is.

    Attributes:
        path: the file.
        sample_rate: of the result, in Hz.
        seconds: its length, by what the file's header tells.
        num_samples: of the result, by what the file's header tells of its length.
        clipped: as in `Sound`, of the blocks read so far.
        loud: the same.
    """

    def __init__(self, path: Source, sample_rate: int):
        """Opens the file and reads its header.

        Raises:
            InputError: as `decode` does.
        """
        self.path, self.sample_rate = path, sample_rate
        self.clipped = self.loud = False
        with _told(path):
            raw = _opened(path)
            self._file = file = soundfile.SoundFile(raw)
            try:
                self._whole = _is_whole(file, raw)
                self._check_header(_size(raw))
            except BaseException:
                file.close()
                raise
        self.seconds = file.frames / file.samplerate
        # As soxr rounds it; of less than half a sample it leaves none.
        steps = 2 * file.frames * sample_rate + file.samplerate
        self.num_samples = max(steps // (2 * file.samplerate), 1)

    def _check_header(self, size: int) -> None:
        path, rate, frames = self.path, self._file.samplerate, self._file.frames
        if frames == UNKNOWN_FRAMES:
            raise InputError(
                f"{path} does not tell how long it is, as a FLAC file that was "
                "streamed; write it anew as a file"
            )
        if rate < LEAST_RATE:
            raise InputError(
                f"{path} has {rate} samples a second; {LEAST_RATE} are the least"
            )
        if frames * self._file.channels > SAMPLES_PER_BYTE * size:
            raise InputError(
                f"{path} is cut off: its header tells of {frames / rate:.0f} seconds, "
                f"which {size} bytes can't hold"
            )

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples, int16 [n] a block, and after the last one the file is closed.

        They are the same to the bit however the file is cut into blocks.

        Raises:
            InputError: as `decode` does.
        """
        with self._file as file, _told(self.path):
            resampler, count = None, 0
            if file.samplerate != self.sample_rate:
                resampler = soxr.ResampleStream(
                    file.samplerate, self.sample_rate, 1, dtype="float32"
                )
            given, first = 0, np.zeros(0, np.float32)
            for block in self._mono_blocks(file):
                if not count:
                    first = block[:1]
                count += len(block)
                block = resampler.resample_chunk(block) if resampler else block
                given += len(block)
                yield _stored(block)
            if not self._whole or count < file.frames:
                raise InputError(
                    f"{self.path} is cut off: it ends after "
                    f"{count / file.samplerate:.3f} seconds, before the end that its "
                    "header tells of"
                )
            if not count:
                raise InputError(f"{self.path} is empty: it holds no samples")
            if resampler:
                block = resampler.resample_chunk(first[:0], last=True)
                # No clip is lost.
                yield _stored(block if given or len(block) else first)

    def _mono_blocks(self, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
        """float32 [n] a block, checked; notes whether samples are clipped or loud."""
        floating = file.subtype in ("FLOAT", "DOUBLE")
        tail = np.zeros((0, file.channels), np.float32)
        while len(samples := file.read(BLOCK, dtype="float32", always_2d=True)):
            peak = max(samples.max(), -samples.min())
            if not np.isfinite(peak):
                raise InputError(f"{self.path} has samples that are not finite numbers")
            if peak > LOUDEST:
                raise InputError(
                    f"{self.path} has samples up to {peak:.6g}; full scale is 1"
                )
            self.loud |= floating and bool(peak > 1)
            if peak >= CLIPPED and not self.clipped:
                self.clipped = _has_runs(np.concatenate([tail, samples]))
            tail = samples[-2:]
            # The mean over one channel is slow for what it does.
            yield samples[:, 0] if file.channels == 1 else samples.mean(axis=1)


def _stored(mono: np.ndarray) -> np.ndarray:
    """Samples with full scale 1 in 16-bit steps."""
    full = INT16_FULL_SCALE
    return np.rint(mono * full).clip(-full, full - 1).astype(np.int16)


@contextlib.contextmanager
def _told(path: Source) -> Iterator[None]:
    """Whatever is raised as an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a MemoryError has no words of its own
        raise InputError(
            f"{path} is not a readable sound file ({str(error) or repr(error)})"
        ) from error


def from_array(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """The sound that an array holds, at another rate: float32 [T].

    Args:
        samples: [T] or [T, channels]. Floating point numbers have full scale 1, and
            what is above it stays; integers have that of their type.
        rate: of the array, in Hz.
        sample_rate: of the result, in Hz.

    Raises:
        InputError: if the array is no audio.
    """
    if problem := unusable(samples):
        raise InputError(f"the array {problem}")
    if rate < LEAST_RATE:
        raise InputError(f"the array's rate is {rate} Hz; {LEAST_RATE} are the least")
    found = mono(samples)
    if rate == sample_rate:
        return found
    resampled = soxr.resample(found, rate, sample_rate)
    return resampled if len(resampled) else found[:1]


def mono(samples: np.ndarray) -> np.ndarray:
    """An array [T] or [T, channels] of any type as float32 [T] with full scale 1."""
    scale = 1.0
    if samples.dtype.kind == "i":
        scale = -float(np.iinfo(samples.dtype).min)
    if samples.ndim == 2:
        samples = samples.mean(axis=1, dtype=np.float64)
    return (samples / scale).astype(np.float32)


def unusable(samples: np.ndarray) -> str | None:
    """Why an array is no audio; None if it is."""
    if samples.ndim not in (1, 2):
        return f"has shape {samples.shape}; give [T] or [T, channels]"
    if samples.dtype.kind not in "fi":
        return (
            f"has type {samples.dtype}; give floating point numbers or signed integers"
        )
    if not samples.size:
        return "is empty: it holds no samples"
    if samples.ndim == 2 and samples.shape[1] > samples.shape[0]:
        channels, length = samples.shape[::-1]
        return f"has {channels} channels of {length} samples; transpose it"
    peak = array_peak(samples)
    if not np.isfinite(peak):
        return "has samples that are not finite numbers"
    if peak > LOUDEST:
        return f"has samples up to {peak:.6g}; full scale is 1"
    return None


def array_peak(samples: np.ndarray) -> float:
    """Of floating point numbers the largest; integers are not above full scale."""
    if samples.dtype.kind == "i":
        return 0
    return max(abs(samples.min()), abs(samples.max()))


def _opened(path: Source) -> Any:
    """What libsndfile reads: a file of this machine by name, another's content."""
    if isinstance(path, Content):
        return io.BytesIO(path.data)
    name = os.fspath(path)
    if "://" in name:
        return io.BytesIO(epath.Path(name).read_bytes())
    return os.fsencode(name)  # there are names that are no text


def _size(raw: Any) -> int:
    """How many bytes what `_opened` gives has."""
    if isinstance(raw, io.BytesIO):
        return raw.getbuffer().nbytes
    return os.path.getsize(raw)


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
