"""From sound files to audio that is prepared once.

What is prepared are the sound files alone: labels, folds and choices of a config may
change without anything being decoded again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from audiojax import files, locks
from audiojax.datasets import checks, splits
from audiojax.datasets.layouts.table import noted
from audiojax.datasets.recordings import Info, Recordings, Settings
from audiojax.datasets.store import builder, data_dir, sums
from audiojax.datasets.store.builder import AudioFiles, AudioFilesByBeam, File, Note
from audiojax.errors import InputError, listed
from audiojax.files import size_text

logger = logging.getLogger(__name__)

# A part has at most so many files, of together so many bytes, or else one file. When
# preparing is stopped, the part that was being decoded is lost.
PART_FILES = 200
PART_BYTES = 1 << 26
# What is shorter, in seconds, is too short to hold a sound that can be told.
SHORT = 0.01
# Holds the sums of a part's files, beside them.
SUMS = "sums.json"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def load(info: Info, settings: Settings) -> Recordings:
    """Opens the audio of a data set's files, preparing it on the first call.

    The folds are those of `settings.split`, and are checked. Preparing goes part by
    part: stopped and started again, it goes on with the first part that is not whole,
    and a part that is no longer as it was written is prepared anew, with a warning.

    Args:
        info: the sound files, their labels and folds, and the rate wanted.
        settings: where to store the audio, what to do with bad files.

    Raises:
        InputError: for sound files that can't be used, all in one; for folds that share
            a recording or a sound; or if the disk is full.
    """
    allow_leaks = settings.allow_leaks
    info = splits.chosen(info, settings)
    checks.check_info(info, allow_leaks=allow_leaks)
    store = _store(info, data_dir(settings.data_dir))
    store.mkdir(exist_ok=True)
    notes: dict[str, Note] = {}
    places: dict[str, tuple[Any, int]] = {}
    for part in _prepared(info, store):
        source = part.source(builder.AUDIO)
        for place, note in enumerate(part.notes()):
            notes[note.filename] = note
            places[note.filename] = source, place
    usable = _usable(info, settings, notes, store)
    if len(usable.clips) < len(info.clips):
        checks.check_info(usable, allow_leaks=allow_leaks)
    used = [notes[clip.filename] for clip in usable.clips]
    digests = [note.sha256 for note in used]
    checks.check_copies(usable, digests, allow_leaks=allow_leaks)
    return Recordings(
        info=usable,
        digests=digests,
        lengths=np.array([note.num_samples for note in used]),
        read=lambda index: builder.stored_samples(*places[used[index].filename]),
        dtype=np.int16,
    )


def with_beam(info: Info, settings: Settings, options: Sequence[str]) -> epath.Path:
    """Prepares a data set by a pipeline of Apache Beam, all files as one part.

    Args:
        info: the sound files; on a cluster their paths must be seen by all workers.
        settings: data_dir is used, which may be in a bucket, and then `fetch` brings to
            a disk what is prepared.
        options: of the pipeline, as on a command line: `--runner=DirectRunner` ...

    Returns:
        The folder of what is prepared. In a data_dir on a disk, `load` finds it.

    Raises:
        InputError: if there is no Apache Beam.
    """
    try:
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )
    except ImportError as error:
        raise InputError(
            f"Apache Beam can't be imported ({error}); pip install 'audiojax[beam]'"
        ) from error
    name = settings.data_dir or ""
    remote = "://" in name
    store = _store(info, epath.Path(name) if remote else data_dir(name))
    files, folder = _whole(info, store)
    with _locked(folder):
        kept = remote or _is_kept(folder)
        whole = AudioFilesByBeam(info, files, folder)
        if not kept or not whole.data_path.exists():
            epath.Path(store).mkdir(parents=True, exist_ok=True)
            whole.prepare(
                file_format="tfrecord" if remote else "array_record",
                pipeline_options=PipelineOptions(list(options)),
            )
            if not remote:
                sums.write_below(folder / SUMS)
    return epath.Path(whole.data_path)


def fetch(info: Info, settings: Settings, bucket: str) -> None:
    """Brings what `with_beam` prepared in a bucket to this machine's data_dir.

    Args:
        info: as it was prepared, its files with the sizes and times of then.
        settings: data_dir is where to.
        bucket: data_dir as it was then.

    Raises:
        InputError: if it is not there.
    """
    there = AudioFiles(info, *_whole(info, _store(info, epath.Path(bucket))))
    if not there.data_path.exists():
        raise InputError(
            f"{bucket} holds no {info.name} at {info.sample_rate} Hz that was prepared "
            "from these files as they are now; prepare it there first"
        )
    store = _store(info, data_dir(settings.data_dir))
    store.mkdir(exist_ok=True)
    with tqdm(total=len(info.clips), unit=" clips", disable=None) as bar:
        _prepare(info, *_whole(info, store), bar, decoded=there.examples())


def _store(info: Info, folder: Any) -> Any:
    """The folder of a data set's parts, on a disk or in a bucket."""
    return folder / f"{info.name}-{info.sample_rate}Hz"


def _folder(info: Info, files: Sequence[File], store: Any) -> Any:
    """The folder of files that are prepared together.

    Its name changes with the files' names, sizes and times, and with the rate: a
    changed file makes its part a new one, and leaves the others as they are.
    """
    stats = [(name, _stat(path)) for name, path in files]
    content = json.dumps([str(AudioFiles.VERSION), info.sample_rate, stats])
    return store / hashlib.sha256(content.encode()).hexdigest()[:16]


def _whole(info: Info, store: Any) -> tuple[list[File], Any]:
    """All files as one part, as Beam prepares them, and its folder."""
    # Their order does not hang on labels and folds.
    files: list[File] = sorted((clip.filename, clip.path) for clip in info.clips)
    return files, _folder(info, files, store)


def _stat(path: os.PathLike[str]) -> tuple[float, float] | None:
    """Size and time of change; None for what can't be reached, which decoding tells."""
    try:
        if "://" in os.fspath(path):
            remote = epath.Path(path).stat()
            return remote.length, remote.mtime
        local = os.stat(path)
        return local.st_size, local.st_mtime_ns
    except OSError:
        return None


def _parts(files: Sequence[File]) -> Iterator[list[File]]:
    """The files in groups of `PART_FILES` or `PART_BYTES` at most."""
    part, size = [], 0
    for name, path in files:
        length, _ = _stat(path) or (0, 0)
        if part and (len(part) == PART_FILES or size + length > PART_BYTES):
            yield part
            part, size = [], 0
        part.append((name, path))
        size += length
    yield part


def _prepared(info: Info, store: Path) -> list[AudioFiles]:
    """Builders whose audio is there, all of it: one by Beam, or one a part."""
    files, folder = _whole(info, store)
    if folder.exists():
        with _locked(folder):
            if _is_kept(folder):
                return [AudioFiles(info, files, folder)]
    options = {"desc": info.name, "unit": " clips", "disable": None, "delay": 0.5}
    with tqdm(total=len(files), **options) as bar:
        parts = [(part, _folder(info, part, store)) for part in _parts(files)]
        return [_prepare(info, *part, bar) for part in parts]


def _locked(folder: Any) -> contextlib.AbstractContextManager[bool]:
    """Whoever looks at a part's folder or writes it does so alone."""
    return locks.held(folder.parent, f"{folder.name}.lock", wait=True)


def _is_kept(folder: Path) -> bool:
    """Whether a part is there as it was written; what is not is deleted.

    Its sums are written last: without them preparing did not come to its end, or an
    older version did it.
    """
    path = folder / SUMS
    damage = sums.damage(path, sums.below(path)) if path.exists() else "no sums"
    if damage and path.exists():
        logger.warning(
            "the prepared audio in %s is damaged (%s); its files are prepared anew",
            *(folder, damage),
        )
    if damage and folder.exists():
        shutil.rmtree(folder)  # or it fails: what stays would be taken for prepared
    return not damage


def _prepare(
    info: Info, files: Sequence[File], folder: Path, bar: tqdm, **options: Any
) -> AudioFiles:
    """One part's builder; its files are decoded on the first call only.

    The sums of what is written come last, so what a killed process leaves is never
    taken for the whole.
    """
    with _locked(folder):
        kept = _is_kept(folder)
        part = AudioFiles(info, files, folder, on_clip=bar.update, **options)
        if kept:
            bar.update(len(files))
            return part
        logger.info("preparing %d clips in %s", len(files), folder)
        try:
            with builder.quiet():
                part.prepare()
            sums.write_below(folder / SUMS)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            if _is_disk_full(error):
                free = shutil.disk_usage(folder.parent).free
                raise InputError(
                    f"the disk is full: {folder.parent} has {size_text(free)} "
                    "left, and preparing needs more; make room, or give another "
                    "data_dir. What is prepared so far is kept"
                ) from error
            raise
    return part


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is that of a full disk.

    The library that writes array_record knows RuntimeError only, with the system's
    words in it.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        if any(os.strerror(number) in str(error) for number in DISK_FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _usable(
    info: Info, settings: Settings, notes: Mapping[str, Note], store: Path
) -> Info:
    """The data set without the files that can't be used, and with a report on all.

    Raises:
        InputError: if there are some and `on_bad_file` is "error", or if none is left.
    """
    names = [clip.filename for clip in info.clips]
    problems = {name: notes[name].problem for name in names if notes[name].problem}
    bad = [problems[name] for name in problems if name not in info.known_broken]
    if bad and settings.on_bad_file == "error":
        path = store / "bad_files.txt"
        text = "\n".join(bad) + "\n"
        files.write_bytes(path, text.encode("utf-8", "backslashreplace"))
        raise InputError(
            f"{len(bad)} of {len(names)} sound files can't be used: {listed(bad)}; all "
            f"are listed in {path}. Mend them, or set config.data.on_bad_file=skip to "
            "leave them out"
        )
    if len(problems) == len(names):
        raise InputError(
            f"none of {info.name}'s {len(names)} sound files can be used: "
            f"{listed(problems.values())}"
        )
    used = [notes[name] for name in names if name not in problems]
    silent = [note.filename for note in used if note.silent]
    clipped = [note.filename for note in used if note.clipped]
    loud = [note.filename for note in used if note.loud]
    least = SHORT * info.sample_rate
    short = [note.filename for note in used if note.num_samples < least]
    too_loud = "clips are clipped: too loud for their recorder"
    above = "clips of floating point numbers are above full scale, and clipped there"
    report = {
        **info.report,
        **noted(info.name, "skipped", problems, "clips can't be used and are left out"),
        **noted(info.name, "silent", silent, "clips are silent"),
        # Published sets are full of clipped sounds: that needs no attention.
        **noted(info.name, "clipped", clipped, too_loud, logging.INFO),
        **noted(info.name, "loud", loud, above),
        **noted(info.name, "short", short, f"clips are under {SHORT * 1000:.0f} ms"),
    }
    clips = tuple(clip for clip in info.clips if clip.filename not in problems)
    return dataclasses.replace(info, clips=clips, report=report)
