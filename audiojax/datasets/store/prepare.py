"""From a table of sound files to audio that is prepared once.

What is prepared are the sound files alone: labels, folds and choices of a config may
change without anything being decoded again. `builder` is imported late: it brings
TensorFlow Datasets, which those need only who read files.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from tqdm import tqdm

from audiojax import files, locks
from audiojax.datasets import checks, splits
from audiojax.datasets.layouts.table import Row, Table
from audiojax.datasets.recordings import Recordings, Settings
from audiojax.datasets.store import folders
from audiojax.errors import InputError, listed

if TYPE_CHECKING:
    from audiojax.datasets.store.builder import AudioFiles, Note

logger = logging.getLogger(__name__)

# A part has at most so many files, of together so many bytes, or else one file. When
# preparing is stopped, the part that was being decoded is lost.
PART_FILES = 200
PART_BYTES = 1 << 26
# What is shorter, in seconds, is too short to hold a sound that can be told.
SHORT = 0.01
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

File = tuple[str, os.PathLike[str]]


@dataclasses.dataclass(frozen=True)
class Part:
    """Files that are prepared together, and the folder for them.

    The folder's name changes with the files' names, sizes and times, and with the rate:
    a changed file makes its part a new one, and leaves the others as they are.
    """

    files: tuple[File, ...]
    folder: epath.Path | Path


def open_table(table: Table, settings: Settings) -> Recordings:
    """Opens a table's audio, preparing it on the first call.

    The folds are those of `settings.split`, and are checked. Preparing goes part by
    part: stopped and started again, it goes on with the first part that is not whole.

    Args:
        table: the sound files, their labels and folds.
        settings: the rate wanted, where to store it, what to do with bad files.

    Raises:
        InputError: for sound files that can't be used, all in one; for folds that share
            a recording or a sound; or if the disk is full.
    """
    from audiojax.datasets.store.builder import AUDIO, stored_samples

    rate, allow_leaks = settings.sample_rate, settings.allow_leaks
    table = splits.chosen(table, settings)
    checks.check_info(table.info(rate), allow_leaks=allow_leaks)
    store = _store(table, rate, folders.data_dir(settings.data_dir))
    store.mkdir(exist_ok=True)
    notes: dict[str, Note] = {}
    places: dict[str, tuple[Any, int]] = {}
    for builder in _prepared(table, rate, store):
        source = builder.source(AUDIO)
        for place, note in enumerate(builder.notes()):
            notes[note.filename] = note
            places[note.filename] = source, place
    num_files = len(table.rows)
    table = _usable(table, settings, notes, store)
    info = table.info(rate)
    if len(table.rows) < num_files:
        checks.check_info(info, allow_leaks=allow_leaks)
    names = [row.filename for row in table.rows]
    digests = [notes[name].sha256 for name in names]
    checks.check_copies(info, digests, allow_leaks=allow_leaks)
    clips = [dataclasses.astuple(clip) for clip in info.clips]
    content = json.dumps([rate, info.classes, clips, digests])
    return Recordings(
        info=info,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        lengths=np.array([notes[name].num_samples for name in names]),
        read=lambda index: stored_samples(*places[names[index]]),
    )


def _usable(
    table: Table, settings: Settings, notes: Mapping[str, Note], store: Path
) -> Table:
    """The table without the files that can't be used, and with a report on all.

    Raises:
        InputError: see `_skipped`.
    """
    skipped = _skipped(table, settings, notes, store)
    rows = tuple(row for row in table.rows if row.filename not in skipped)
    report = dict(table.report) | _report(rows, skipped, notes, settings.sample_rate)
    _log(table.name, report)
    return dataclasses.replace(table, rows=rows, report=report)


def with_beam(table: Table, settings: Settings, options: Sequence[str]) -> epath.Path:
    """Prepares a table by a pipeline of Apache Beam, all files as one part.

    Args:
        table: the sound files; on a cluster their paths must be seen by all workers.
        settings: sample_rate and data_dir are used; data_dir may be in a bucket, and
            then `fetch` brings to a disk what is prepared.
        options: of the pipeline, as on a command line: `--runner=DirectRunner` ...

    Returns:
        The folder of what is prepared. In a data_dir on a disk, `open_table` finds it.

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
    from audiojax.datasets.store.builder import AudioFilesByBeam

    name = settings.data_dir or ""
    remote = "://" in name
    data_dir = epath.Path(name) if remote else folders.data_dir(name)
    part = _whole(table, settings.sample_rate, data_dir)
    builder = AudioFilesByBeam(**_about(table, part, settings.sample_rate))
    if not builder.data_path.exists():
        epath.Path(part.folder).mkdir(parents=True, exist_ok=True)
        builder.prepare(
            file_format="tfrecord" if remote else "array_record",
            pipeline_options=PipelineOptions(list(options)),
        )
    return epath.Path(builder.data_path)


def fetch(table: Table, settings: Settings, bucket: str) -> None:
    """Brings what `with_beam` prepared in a bucket to this machine's data_dir.

    Args:
        table: as it was prepared, its files with the sizes and times of then.
        settings: the same sample_rate; data_dir is where to.
        bucket: data_dir as it was then.

    Raises:
        InputError: if it is not there.
    """
    rate = settings.sample_rate
    there = _builder(table, _whole(table, rate, epath.Path(bucket)), rate)
    if not there.data_path.exists():
        raise InputError(
            f"{bucket} holds no {table.name} at {rate} Hz that was prepared from these "
            "files as they are now; prepare it there first"
        )
    part = _whole(table, rate, folders.data_dir(settings.data_dir))
    Path(part.folder).parent.mkdir(exist_ok=True)
    with tqdm(total=len(part.files), unit=" clips", disable=None) as bar:
        _prepare(table, part, rate, bar, decoded=there.examples())


def _whole(table: Table, sample_rate: int, data_dir: epath.Path | Path) -> Part:
    """All files as one part, as Beam prepares them."""
    return _part(_files(table), sample_rate, _store(table, sample_rate, data_dir))


def _store(table: Table, sample_rate: int, data_dir: epath.Path | Path) -> Any:
    """The folder of a data set's parts."""
    return data_dir / f"{table.name}-{sample_rate}Hz"


def _files(table: Table) -> list[File]:
    """The table's files in an order that does not hang on labels and folds."""
    return sorted((row.filename, row.path) for row in table.rows)


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


def _part(files: Sequence[File], sample_rate: int, store: epath.Path | Path) -> Part:
    from audiojax.datasets.store.builder import AudioFiles

    content = [
        str(AudioFiles.VERSION),
        sample_rate,
        [(name, _stat(path)) for name, path in files],
    ]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return Part(tuple(files), store / key)


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


def _about(table: Table, part: Part, sample_rate: int) -> dict[str, Any]:
    """What a builder is made with."""
    return {
        "name": table.name,
        "description": table.description or table.name,
        "homepage": table.homepage,
        "files": part.files,
        "sample_rate": sample_rate,
        "data_dir": part.folder,
    }


def _builder(table: Table, part: Part, sample_rate: int, **options: Any) -> AudioFiles:
    from audiojax.datasets.store.builder import AudioFiles, quiet

    with quiet():
        return AudioFiles(**_about(table, part, sample_rate), **options)


def _prepared(table: Table, sample_rate: int, store: Path) -> list[AudioFiles]:
    """Builders whose audio is there, all of it: one by Beam, or one a part."""
    of_table = _files(table)
    whole = _builder(table, _part(of_table, sample_rate, store), sample_rate)
    if whole.data_path.exists():
        return [whole]
    parts = [_part(part, sample_rate, store) for part in _parts(of_table)]
    with tqdm(
        total=len(of_table), desc=table.name, unit=" clips", disable=None, delay=0.5
    ) as bar:
        return [_prepare(table, part, sample_rate, bar) for part in parts]


def _prepare(
    table: Table, part: Part, sample_rate: int, bar: tqdm, **options: Any
) -> AudioFiles:
    """One part's builder; its files are decoded on the first call only.

    TensorFlow Datasets writes to a folder of another name and renames it at the end, so
    what a killed process leaves is never taken for the whole; it is cleared away here.
    """
    from audiojax.datasets.store.builder import quiet

    with locks.held(part.folder.parent, f"{part.folder.name}.lock", wait=True):
        builder = _builder(table, part, sample_rate, on_clip=bar.update, **options)
        if builder.data_path.exists():
            bar.update(len(part.files))
            return builder
        logger.info("preparing %d clips in %s", len(part.files), part.folder)
        shutil.rmtree(part.folder, ignore_errors=True)
        try:
            with quiet():
                builder.prepare()
        except Exception as error:
            shutil.rmtree(part.folder, ignore_errors=True)
            if _is_disk_full(error):
                free = shutil.disk_usage(part.folder.parent).free
                raise InputError(
                    f"the disk is full: {part.folder.parent} has {free / 2**20:.0f} "
                    "MiB left, and preparing needs more; make room, or give another "
                    "data_dir. What is prepared so far is kept"
                ) from error
            raise
    return builder


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


def _skipped(
    table: Table, settings: Settings, notes: Mapping[str, Note], store: Path
) -> dict[str, str]:
    """Files to leave out, and why.

    Raises:
        InputError: if there are some and `on_bad_file` is "error", or if none is left.
    """
    problems = {
        row.filename: notes[row.filename].problem
        for row in table.rows
        if notes[row.filename].problem
    }
    bad = [problems[name] for name in problems if name not in table.known_broken]
    total = len(table.rows)
    if bad and settings.on_bad_file == "error":
        path = store / "bad_files.txt"
        text = "\n".join(bad) + "\n"
        files.write_bytes(path, text.encode("utf-8", "backslashreplace"))
        raise InputError(
            f"{len(bad)} of {total} sound files can't be used: {listed(bad)}; all are "
            f"listed in {path}. Mend them, or set config.data.on_bad_file=skip to "
            "leave them out"
        )
    if len(problems) == total:
        raise InputError(
            f"none of {table.name}'s {total} sound files can be used: "
            f"{listed(problems.values())}"
        )
    return problems


def _report(
    rows: Sequence[Row],
    skipped: dict[str, str],
    notes: Mapping[str, Note],
    sample_rate: int,
) -> dict[str, Any]:
    """What is worth knowing of the files, by kind; kinds without files are left out."""
    of_kind: dict[str, Any] = {"skipped": skipped}
    kept = [notes[row.filename] for row in rows]
    of_kind["silent"] = [note.filename for note in kept if note.silent]
    of_kind["clipped"] = [note.filename for note in kept if note.clipped]
    of_kind["short"] = [
        note.filename for note in kept if note.num_samples < SHORT * sample_rate
    ]
    return {kind: files for kind, files in of_kind.items() if files}


WORDS = {
    "skipped": "can't be used and are left out",
    "silent": "are silent",
    "clipped": "are clipped: too loud for their recorder",
    "short": f"are shorter than {SHORT * 1000:.0f} ms",
}


def _log(name: str, report: Mapping[str, Any]) -> None:
    for kind, words in WORDS.items():
        if files := report.get(kind):
            shown = listed(files.values() if kind == "skipped" else files)
            # Published sets are full of clipped sounds: that needs no attention.
            level = logging.INFO if kind == "clipped" else logging.WARNING
            logger.log(level, "%s: %d clips %s: %s", name, len(files), words, shown)
