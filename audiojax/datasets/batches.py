"""Batches of clips or of their images, fetched ahead by tf.data or by threads."""

from __future__ import annotations

import atexit
import functools
import logging
import math
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from audiojax import clips
from audiojax.clips import ClipPolicy
from audiojax.datasets.parallel import in_parallel
from audiojax.datasets.recordings import Info, Recordings
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

# Batches fetched at once, and finished ones kept waiting. More would only cost memory:
# a batch of 32 clips of five seconds is 28 MB.
PARALLEL = 2
PREFETCH = 2

# Streams of random numbers that must not be one.
_ORDER, _WINDOW = (), (1,)

Batch = dict[str, np.ndarray]
Indices = Sequence[int] | np.ndarray


def num_batches(n: int, batch_size: int) -> int:
    """How many batches hold n clips, the last one partly filled."""
    return math.ceil(n / batch_size)


def order(
    indices: Indices, *, seed: int, epoch: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """The clip numbers of an epoch, which depend on seed and epoch alone.

    Args:
        indices: [n] clip numbers.
        seed: of the run, at least 0.
        epoch: from 0.
        weights: [n] how often each is wanted, in proportion; None for each once.

    Returns:
        [n] the same numbers, permuted; or, with weights, drawn with replacement.

    Raises:
        InputError: for a negative seed, or weights that are negative, not finite, all
            0, or not as many as the clips.
    """
    random = _random(seed, epoch, _ORDER)
    if weights is None:
        return random.permutation(indices)
    weights = np.asarray(weights, np.float64)
    if (
        weights.shape != np.shape(indices)
        or not (np.isfinite(weights) & (weights >= 0)).all()
        or not weights.any()
    ):
        raise InputError(
            f"the weights of {len(indices)} clips are {weights.size} numbers from "
            f"{weights.min(initial=np.inf)} to {weights.max(initial=-np.inf)}; give "
            "each clip a number of at least 0, and one of them more"
        )
    return random.choice(indices, len(weights), p=weights / weights.sum())


def _random(seed: int, epoch: int, stream: tuple[int, ...]) -> np.random.Generator:
    if seed < 0:
        raise InputError(f"the seed is {seed}; give at least 0")
    sequence = np.random.SeedSequence([seed, epoch, *stream])
    return np.random.Generator(np.random.PCG64(sequence))


def train_batches(
    recordings: Recordings,
    indices: Indices,
    *,
    batch_size: int,
    policy: ClipPolicy,
    seed: int,
    epoch: int,
    start: int = 0,
    rows: slice = slice(None),
    image: Any = None,
    weights: np.ndarray | None = None,
    clean_copy: bool = False,
) -> Iterator[Batch]:
    """The batches of one epoch, in its order.

    The last one is filled up with clips from the epoch's start, whose mask is 0: they
    count in BatchNorm's statistics, where zeros would do harm, but not in the loss.

    Of a clip longer than a row, "crop" takes a window anywhere, or one of the cached
    images where those are given.

    Args:
        recordings: the data set.
        indices: [n] numbers of the clips to train on.
        batch_size: rows of every batch, on all processes together.
        policy: how clips become rows; what is cut is told in a warning.
        seed: of the run.
        epoch: from 0.
        start: batches of the epoch to leave out; none of their clips is read.
        rows: which rows of every batch to give, where processes share them; clips of
            the other rows are not read.
        image: [W, mel, frames, C] as `image_cache` gives it, instead of audio.
        weights: [n] to draw the epoch's n clips by, with replacement; None to take
            each once.
        clean_copy: give every clip twice, once to be changed and once clean, all in
            one order.

    Returns:
        An iterator of {"audio": [B, num_samples] as it is kept, float32 in [-1, 1] or
        int16, or "image": float32 [B, mel, frames, C], "label": int32 [B], or float32
        [B, classes] with 0 and 1 if clips have several, "mask": float32 [B], "index":
        int32 [B], clip numbers};
        mask is 0 for rows that only fill the batch. Where audio is to be stretched,
        "length": int32 [B] is its true length in samples. With clean copies,
        "changed": bool [B] says which rows are to be changed.

    Raises:
        InputError: if there are no clips, for a batch_size below 1 or a seed below 0,
            or weights that can't be drawn by.
    """
    indices = np.asarray(indices, np.int64)
    copies = 2 if clean_copy else 1
    size = copies * len(indices)
    row, mask = _rows(size, batch_size, start, rows)
    row %= size
    weights = None if weights is None else np.tile(weights, copies)
    place_in_epoch = order(np.arange(size), seed=seed, epoch=epoch, weights=weights)
    clip = np.tile(indices, copies)[place_in_epoch]
    chance = _random(seed, epoch, _WINDOW).random(len(clip))
    lengths = recordings.lengths[clip]
    if image is None:
        place = clips.drawn(lengths, policy, chance)
    else:
        number = (chance * clips.counts(lengths, policy)).astype(np.int64)
        place = clips.first(recordings.lengths, policy)[clip] + number
    stream = _stream(recordings, policy, image, clip[row], place[row], mask)
    if not clean_copy:
        return stream
    changed = place_in_epoch[row] < len(indices)
    return ({**b, "changed": c} for b, c in zip(stream, changed, strict=True))


def eval_batches(
    recordings: Recordings,
    indices: Indices,
    *,
    batch_size: int,
    policy: ClipPolicy,
    rows: slice = slice(None),
    image: Any = None,
) -> Iterator[Batch]:
    """Batches of all windows of the clips as given; the last one fills up the rows.

    Windows of a clip follow each other, over the end of a batch if need be.
    Arguments, batches and errors are those of `train_batches`.
    """
    indices = np.asarray(indices, np.int64)
    lengths = recordings.lengths[indices]
    position, number = clips.every(lengths, policy)
    clip = indices[position]
    row, mask = _rows(len(clip), batch_size, 0, rows)
    row = np.minimum(row, len(clip) - 1)
    if image is None:
        place = clips.starts(lengths[position], policy, number)
    else:
        place = clips.first(recordings.lengths, policy)[clip] + number
    return _stream(recordings, policy, image, clip[row], place[row], mask)


def _rows(
    n: int, batch_size: int, start: int, rows: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers from 0 of the rows, and a mask of those below n: both [batches, B]."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give at least 1")
    if n < 1:
        raise InputError("there are no clips to make batches of")
    row = np.arange(num_batches(n, batch_size) * batch_size).reshape(-1, batch_size)
    row = row[start:, rows]
    return row, (row < n).astype(np.float32)


def _stream(
    recordings: Recordings,
    policy: ClipPolicy,
    image: Any,
    clip: np.ndarray,
    place: np.ndarray,
    mask: np.ndarray,
) -> Iterator[Batch]:
    """Batches fetched ahead, from now on, before the first is asked for.

    `clip`, `place` and `mask` are [batches, B]; a place is the window's first sample,
    or its number among the images, if they are given.
    """
    if image is None:
        warn_of_cut_clips(recordings, policy)
    labels = _labels(recordings.info)

    def fetch(clip: np.ndarray, place: np.ndarray, mask: np.ndarray) -> Batch:
        rows = {"label": labels[clip], "mask": mask, "index": clip.astype(np.int32)}
        if image is None:
            return _audio(recordings, policy, clip, place) | rows
        return {"image": np.asarray(image[place], np.float32)} | rows

    if recordings.in_memory or not _tensorflow():
        table = zip(clip, place, mask, strict=True)
        ahead = PARALLEL + PREFETCH - 1
        stream = in_parallel(lambda row: fetch(*row), table, PARALLEL, ahead)
    else:
        stream = _by_tf_data(fetch, clip, place, mask)
    _streams.add(stream)
    return stream


def _labels(info: Info) -> np.ndarray:
    """Labels by clip number: int32 [N], or float32 [N, classes] if multi-label."""
    if not info.multi_label:
        return np.array([clip.label for clip in info.clips], np.int32)
    labels = np.zeros((len(info.clips), info.num_classes), np.float32)
    for row, clip in zip(labels, info.clips, strict=True):
        row[list(clip.labels)] = 1
    return labels


@functools.cache
def _tensorflow() -> Any:
    """TensorFlow, loaded when first needed, or None where it is not installed."""
    try:
        import tensorflow as tf
    except ImportError:
        logger.info("TensorFlow is not installed; threads fetch the batches")
        return None
    # The accelerator is JAX's; TensorFlow would take all of its memory.
    tf.config.set_visible_devices([], "GPU")
    return tf


def _by_tf_data(fetch: Callable[..., Batch], *table: np.ndarray) -> Generator[Batch]:
    """`fetch` of each row of arrays [batches, B], in order, as `in_parallel` does."""
    tf, failures = _tensorflow(), []
    # A batch of no clips costs nothing and tells what the others hold.
    empty = fetch(*(column.ravel()[:0] for column in table))
    dtypes = [array.dtype for array in empty.values()]

    def arrays(*row: np.ndarray) -> list[np.ndarray]:
        try:
            return list(fetch(*row).values())
        except Exception as error:
            failures.append(error)
            raise

    def load(*row: Any) -> dict[str, Any]:
        values = tf.numpy_function(arrays, row, dtypes, stateful=False)
        return dict(zip(empty, values, strict=True))

    dataset = tf.data.Dataset.from_tensor_slices(table)
    dataset = dataset.map(load, num_parallel_calls=PARALLEL, deterministic=True)
    options = tf.data.Options()
    options.experimental_warm_start = True
    # All sizes are given. The thread that would choose them sleeps ever longer, and the
    # end of an epoch would wait for it.
    options.autotune.enabled = False
    dataset = dataset.prefetch(PREFETCH).with_options(options)

    def stream(iterator: Iterator[Batch]) -> Generator[Batch]:
        try:
            yield from iterator
        except tf.errors.OpError:
            if failures:  # TensorFlow's own error would hide what is wrong with a clip.
                raise failures[0] from None
            raise

    return stream(dataset.as_numpy_iterator())


# Streams that someone holds. One that is left in the middle must be closed while Python
# still runs: later its threads wait for Python, and Python's end waits for them.
_streams: weakref.WeakSet[Generator[Batch]] = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    for stream in list(_streams):
        stream.close()


def _audio(
    recordings: Recordings, policy: ClipPolicy, clip: np.ndarray, start: np.ndarray
) -> Batch:
    """Waveforms [B, num_samples], and their true lengths if they are needed."""
    audio = np.empty((len(clip), policy.num_samples), recordings.dtype)
    for row, index, first in zip(audio, clip, start, strict=True):
        row[:] = clips.fit(recordings.samples(index), first, policy)
    if not policy.needs_length:
        return {"audio": audio}
    length = clips.true_lengths(recordings.lengths[clip], policy)
    return {"audio": audio, "length": length}


def warn_of_cut_clips(recordings: Recordings, policy: ClipPolicy) -> None:
    """Says how many clips lose how much, once for a data set and policy."""
    unseen = clips.unseen(recordings.lengths, policy, recordings.info.sample_rate)
    if unseen is not None:
        _warn_once(f"{recordings.info.name}: {unseen}")


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)
