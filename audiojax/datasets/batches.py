"""Batches of clips or of their images, streamed by tf.data."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from audiojax.datasets import folders
from audiojax.datasets.recordings import Info, Recordings, listed
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

# The accelerator is JAX's; TensorFlow would take all of its memory.
tf.config.set_visible_devices([], "GPU")

# Batches fetched at once, and finished ones kept waiting. More would only cost memory:
# a batch of 32 clips of five seconds is 28 MB.
PARALLEL = 2
PREFETCH = 2

Batch = dict[str, np.ndarray]
Indices = Sequence[int] | np.ndarray


def num_batches(n: int, batch_size: int) -> int:
    """How many batches hold n clips, the last one partly filled."""
    return math.ceil(n / batch_size)


def order(indices: Indices, *, seed: int, epoch: int) -> np.ndarray:
    """The clip numbers in an epoch's order, which depends on seed and epoch alone.

    Args:
        indices: [n] clip numbers.
        seed: of the run, at least 0.
        epoch: from 0.

    Returns:
        [n] the same numbers, permuted.

    Raises:
        InputError: for a negative seed.
    """
    if seed < 0:
        raise InputError(f"the seed is {seed}; give at least 0")
    sequence = np.random.SeedSequence([seed, epoch])
    return np.random.Generator(np.random.PCG64(sequence)).permutation(indices)


def train_batches(
    recordings: Recordings,
    indices: Indices,
    *,
    batch_size: int,
    num_samples: int,
    seed: int,
    epoch: int,
    start: int = 0,
    rows: slice = slice(None),
    image: Any = None,
) -> Iterator[Batch]:
    """The batches of one epoch, in its order.

    The last one is filled up with clips from the epoch's start, whose mask is 0: they
    count in BatchNorm's statistics, where zeros would do harm, but not in the loss.

    Args:
        recordings: the data set.
        indices: [n] numbers of the clips to train on.
        batch_size: rows of every batch.
        num_samples: length of every row of audio: shorter clips are followed by
            zeros, longer ones cut at the end, of which a warning tells.
        seed: of the run.
        epoch: from 0.
        start: batches of the epoch to leave out; none of their clips is read.
        rows: which rows of every batch to give, where processes share them.
        image: [N, mel, frames, C] by clip number, given instead of audio.

    Returns:
        An iterator of {"audio": float32 [B, num_samples] or "image": float32
        [B, mel, frames, C], "label": int32 [B], "mask": float32 [B], "index": int32
        [B]}; mask is 0 for rows that only fill the batch.

    Raises:
        InputError: if there are no clips, or for a batch_size below 1
            or a seed below 0.
    """
    ordered = order(np.asarray(indices), seed=seed, epoch=epoch)
    place, mask = _rows(len(ordered), batch_size, lambda row: row % len(ordered))
    wanted = slice(start, None), rows
    return _stream(recordings, ordered[place][wanted], mask[wanted], num_samples, image)


def eval_batches(
    recordings: Recordings,
    indices: Indices,
    *,
    batch_size: int,
    num_samples: int,
    image: Any = None,
) -> Iterator[Batch]:
    """Batches of the clips as given, each once; the last clip fills the last batch.

    Arguments, batches and errors are those of `train_batches`.
    """
    indices = np.asarray(indices)
    rows, mask = _rows(
        len(indices), batch_size, lambda row: np.minimum(row, len(indices) - 1)
    )
    return _stream(recordings, indices[rows], mask, num_samples, image)


def _rows(
    n: int, batch_size: int, fill: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Which of n clips stand in which row, and a mask: both [batches, batch_size]."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give at least 1")
    if n < 1:
        raise InputError("there are no clips to make batches of")
    row = np.arange(num_batches(n, batch_size) * batch_size).reshape(-1, batch_size)
    return fill(row), (row < n).astype(np.float32)


def _stream(
    recordings: Recordings,
    indices: np.ndarray,
    mask: np.ndarray,
    num_samples: int,
    image: Any,
) -> Iterator[Batch]:
    """Batches of the clips `indices` [batches, B], fetched ahead."""
    if image is None:
        _warn_of_cut_clips(recordings, num_samples)
        name, shape = "audio", (num_samples,)
        fetch = functools.partial(_audio, recordings, num_samples)
    else:
        name, shape = "image", image.shape[1:]
        fetch = functools.partial(_images, image)
    labels = np.array([clip.label for clip in recordings.info.clips], np.int32)

    def load(index: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        data = tf.numpy_function(fetch, [index], tf.float32, stateful=False)
        return {
            name: tf.ensure_shape(data, (indices.shape[1], *shape)),
            "label": tf.gather(labels, index),
            "mask": mask,
            "index": index,
        }

    dataset = tf.data.Dataset.from_tensor_slices((indices.astype(np.int32), mask))
    dataset = dataset.map(load, num_parallel_calls=PARALLEL, deterministic=True)
    stream = _until_closed(dataset.prefetch(PREFETCH).as_numpy_iterator())
    _streams.add(stream)
    return stream


def _until_closed(iterator: Any) -> Generator[Batch]:
    """The iterator's batches; a generator, as that can be closed from outside."""
    yield from iterator


# Streams that someone holds. One that is left in the middle must be closed while Python
# still runs: later its threads wait for Python, and Python's end waits for them.
_streams: weakref.WeakSet[Generator[Batch]] = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    for stream in list(_streams):
        stream.close()


def _audio(recordings: Recordings, num_samples: int, indices: np.ndarray) -> np.ndarray:
    """[B, num_samples], zeros after what is shorter."""
    batch = np.zeros((len(indices), num_samples), np.float32)
    for row, index in zip(batch, indices, strict=True):
        samples = recordings.audio(index)[:num_samples]
        row[: len(samples)] = samples
    return batch


def _images(image: Any, indices: np.ndarray) -> np.ndarray:
    """[B, mel, frames, C]."""
    return np.asarray(image[indices], np.float32)


def _warn_of_cut_clips(recordings: Recordings, num_samples: int) -> None:
    """Says how many clips lose how much, once for a data set and length."""
    over = recordings.lengths[recordings.lengths > num_samples] - num_samples
    if len(over):
        rate = recordings.info.sample_rate
        _warn_once(
            f"{recordings.info.name}: {len(over)} of {len(recordings)} clips are "
            f"longer than {num_samples / rate:.3f} s and are cut at the end: half of "
            f"them by at most {np.median(over) / rate:.3f} s, the longest by "
            f"{over.max() / rate:.3f} s"
        )


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def image_cache(
    recordings: Recordings,
    *,
    key: str,
    shape: tuple[int, ...],
    compute: Callable[[np.ndarray], Any],
    num_samples: int,
    batch_size: int,
    cache_dir: str | None,
) -> np.ndarray:
    """Every clip's image, computed once, kept on the disk and mapped into memory.

    Args:
        recordings: the data set.
        key: names all settings of `compute`.
        shape: of one image: (mel, frames, C).
        compute: [batch_size, num_samples] -> [batch_size, *shape].
        num_samples: length to which clips are cut or filled up with zeros.
        batch_size: clips computed at once.
        cache_dir: folder of the cache, or None for the default of prepared data.

    Returns:
        float32 [N, *shape] by clip number, read-only.

    Raises:
        InputError: if there is not enough room on the disk.
    """
    _warn_of_cut_clips(recordings, num_samples)
    content = json.dumps([recordings.fingerprint, key, num_samples, shape])
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    path = folders.data_dir(cache_dir) / f"log_mel-{digest}.npy"
    shape = (len(recordings), *shape)
    with folders.locked(path):
        if not path.exists():
            _check_room(path, shape)
            batches = eval_batches(
                recordings,
                np.arange(len(recordings)),
                batch_size=batch_size,
                num_samples=num_samples,
            )
            _write_images(path, shape, batches, compute)
    try:
        return np.load(path, mmap_mode="r").reshape(shape)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it, and it is made anew"
        ) from error


def _check_room(path: Path, shape: tuple[int, ...]) -> None:
    size, free = 4 * math.prod(shape), shutil.disk_usage(path.parent).free
    logger.info("computing %d images to %s: %.2f GiB", shape[0], path, size / 2**30)
    if size > free:
        raise InputError(
            f"the images take {size / 2**30:.2f} GiB, and {path.parent} has "
            f"{free / 2**30:.2f} GiB free; make room, give another data_dir, or set "
            "config.data.stage to audio, which stores none"
        )


def _write_images(
    path: Path,
    shape: tuple[int, ...],
    batches: Iterator[Batch],
    compute: Callable[[np.ndarray], Any],
) -> None:
    """Writes an `.npy` file batch by batch; it gets its name when it is whole."""
    part = path.with_name(f"{path.name}.part")
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    try:
        with (
            part.open("wb") as file,
            tqdm(total=shape[0], desc="log-mel", unit=" clips", disable=None) as bar,
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for batch in batches:
                images = np.asarray(compute(batch["audio"]), "<f4")
                images = images[batch["mask"] > 0]
                if images.shape[1:] != shape[1:]:
                    raise ValueError(f"images {images.shape[1:]}, not {shape[1:]}")
                file.write(images.tobytes())
                bar.update(len(images))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_disjoint(info: Info, train_indices: Indices, test_indices: Indices) -> None:
    """Checks that no source recording is heard in training and in the test.

    Recordings that the publisher's own folds share are only warned of.

    Raises:
        InputError: if one is; the clips are named.
    """
    trained = {info.clips[i].source: info.clips[i] for i in train_indices}
    tested = {info.clips[i].source: info.clips[i] for i in test_indices}
    pairs = {
        source: f"{trained[source].filename} and {tested[source].filename}"
        for source in sorted(trained.keys() & tested.keys())
    }
    known = [source for source in pairs if source in info.shared_sources]
    if known:
        logger.warning(
            "%s: its own folds share %d recordings between training and test: %s",
            *(info.name, len(known), listed(pairs.pop(source) for source in known)),
        )
    if pairs:
        raise InputError(
            f"{info.name}: {len(pairs)} source recordings are on both sides of the "
            f"split, which would flatter the result: {listed(pairs.values())}; put the "
            "clips of a recording into one fold"
        )
