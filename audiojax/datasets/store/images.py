"""Images of clips, computed once and kept on the disk."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from audiojax import clips, files, locks
from audiojax.clips import ClipPolicy
from audiojax.datasets import batches
from audiojax.datasets.batches import Batch
from audiojax.datasets.recordings import Recordings
from audiojax.datasets.store import data_dir, sums
from audiojax.errors import InputError

logger = logging.getLogger(__name__)


def image_cache(
    recordings: Recordings,
    *,
    key: str,
    shape: tuple[int, ...],
    compute: Callable[[Batch], Any],
    policy: ClipPolicy,
    batch_size: int,
    cache_dir: str | None,
) -> np.ndarray:
    """The image of every window of every clip, computed once and kept on the disk.

    The file is mapped into memory, never loaded: the system keeps in memory as much of
    it as there is room for, and reads the rest again when it is asked for. So it is
    the disk that it has to fit on; before anything is computed its size is told, and
    compared with the room there.

    Beside it lie the sums of its content, which are compared each time it is opened:
    images that were damaged are thrown away with a warning, and computed anew.

    Args:
        recordings: the data set.
        key: names all settings of `compute`.
        shape: of one image: (mel, frames, C).
        compute: a batch as `eval_batches` gives it -> images [batch_size, *shape].
        policy: how clips become rows.
        batch_size: windows computed at once.
        cache_dir: folder of the cache, or None for the default of prepared data.

    Returns:
        float32 [W, *shape], read-only: the windows that evaluation sees, in the order
        of `clips.every`. Clip number n has row n where each has one window.

    Raises:
        InputError: if there is not enough room on the disk.
    """
    batches.warn_of_cut_clips(recordings, policy)
    settings = dataclasses.asdict(policy)
    content = json.dumps([recordings.fingerprint.sha256, key, settings, shape])
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    path = data_dir(cache_dir) / f"log_mel-{digest}.npy"
    shape = (int(clips.counts(recordings.lengths, policy).sum()), *shape)
    with locks.held(path.parent, f"{path.name}.lock", wait=True):
        if not _is_kept(path):
            _check_room(path, shape)
            every = np.arange(len(recordings))
            windows = batches.eval_batches(
                recordings, every, batch_size=batch_size, policy=policy
            )
            _write(path, shape, windows, compute)
        return np.load(path, mmap_mode="r").reshape(shape)


def _sums(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_kept(path: Path) -> bool:
    """Whether images are there as they were written; what is not is deleted."""
    if not path.exists():
        return False
    damage = sums.damage(_sums(path), {path.name})
    if damage:
        logger.warning(
            "the images kept in %s are damaged (%s); they are computed anew",
            *(path, damage),
        )
        path.unlink()
    return not damage


def _check_room(path: Path, shape: tuple[int, ...]) -> None:
    size, free = 4 * math.prod(shape), shutil.disk_usage(path.parent).free
    needed, room = files.size_text(size), files.size_text(free)
    logger.info("computing %d images to %s: %s", shape[0], path, needed)
    if size > free:
        raise InputError(
            f"the images take {needed}, and {path.parent} has {room} free; make room, "
            "give another data_dir, or set config.data.stage to audio, which stores "
            "none"
        )


def _write(
    path: Path,
    shape: tuple[int, ...],
    windows: Iterator[Batch],
    compute: Callable[[Batch], Any],
) -> None:
    """Writes an `.npy` file batch by batch, and before it is there its sums.

    They are those of what was computed, not of what the disk gives back.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    parts = [sums.of(header.getvalue())]
    with (
        files.whole(path, alone=True) as part,
        part.open("wb") as file,
        tqdm(total=shape[0], desc="log-mel", unit=" images", disable=None) as bar,
    ):
        file.write(header.getvalue())
        for batch in windows:
            images = np.asarray(compute(batch), "<f4")
            images = images[batch["mask"] > 0]
            if images.shape[1:] != shape[1:]:
                raise ValueError(f"images {images.shape[1:]}, not {shape[1:]}")
            content = images.tobytes()
            parts.append(sums.of(content))
            file.write(content)
            bar.update(len(images))
        file.flush()
        sums.write(_sums(path), {path.name: parts})
