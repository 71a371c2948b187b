"""What layouts share: source folders, CSV files, and notes on what is left out."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

from audiojax.datasets.recordings import Clip
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)

T = TypeVar("T")
Fields = dict[str, str]


def source_folder(source_dir: str | None, name: str, needed: str) -> epath.Path:
    """The folder that `source_dir` names, here or in a bucket.

    Raises:
        InputError: if it is none; `needed` says what to give for the data set `name`.
    """
    if source_dir is None:
        raise InputError(f"{name} needs config.data.source_dir: {needed}")
    folder = epath.Path(source_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"source_dir {folder} is not a folder; give {needed}")
    return folder


def noted(
    where: object,
    kind: str,
    found: Collection[str] | Mapping[str, str],
    words: str,
    level: int = logging.WARNING,
) -> dict[str, Any]:
    """An entry of `Info.report`, which is logged too; none where nothing was found.

    Args:
        where: the data set or the folder.
        kind: the entry's key.
        found: names, or what is wrong by name.
        words: what they are, as in "files are left out".
        level: of the log.
    """
    if not found:
        return {}
    shown = listed(found.values() if isinstance(found, Mapping) else found)
    logger.log(level, "%s: %d %s: %s", where, len(found), words, shown)
    return {kind: found}


def read_csv(
    path: epath.Path | Path,
    parse: Callable[[Fields], T],
    needed: Sequence[str],
    optional: Sequence[str] = (),
) -> tuple[list[tuple[int, T]], list[str]]:
    """Reads a CSV file whose first line names its columns.

    Args:
        path: of the file; a byte-order mark and any line ends are understood.
        parse: makes something of a row's cells; its ValueError says what is wrong.
        needed: columns that must be there.
        optional: columns that may be there; any other is passed over.

    Returns:
        (line number, what `parse` made) of each row, and what is wrong with the others.

    Raises:
        InputError: if it is no such file.
    """
    parsed, problems = [], []
    try:
        # A byte-order mark, as Excel writes it, is no part of the first column's name.
        text = path.read_bytes().decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = next(rows, [])
        _check_columns(path, columns, needed, optional)
        number = rows.line_num + 1
        for cells in rows:
            if cells and len(cells) != len(columns):
                raise InputError(
                    f"{path}, line {number}: {len(cells)} cells, but the first line "
                    f"names {len(columns)} columns; put a text that holds a comma into "
                    "quotes"
                )
            if cells:  # an empty line is none of the table's
                fields = dict(zip(columns, cells, strict=True))
                try:
                    parsed.append((number, parse(fields)))
                except ValueError as error:
                    problems.append(f"line {number}: {error}")
            number = rows.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not in UTF-8 ({error}); save it as CSV in UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file ({error})") from error
    return parsed, problems


def _check_columns(
    path: object, columns: list[str], needed: Sequence[str], optional: Sequence[str]
) -> None:
    missing = [name for name in needed if name not in columns]
    found = ", ".join(map(repr, columns)) or "none"
    if missing and len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        raise InputError(
            f"{path} has one column only, {found}; put commas between the columns"
        )
    if missing:
        wanted = f", and if wanted {', '.join(optional)}" if optional else ""
        raise InputError(
            f"{path} lacks the columns {', '.join(missing)}; it has {found}, expected "
            f"are {', '.join(needed)}{wanted}"
        )
    twice = [name for name, n in collections.Counter(columns).items() if n > 1]
    if {*twice} & {*needed, *optional}:
        raise InputError(f"{path} has columns twice: {', '.join(twice)}; keep one each")
    if {"fold", "split"} <= {*columns} & {*optional}:
        raise InputError(f"{path} has the columns fold and split; keep one of them")


def published(
    source: epath.Path,
    path: str,
    parse: Callable[[Fields], Clip],
    columns: Sequence[str],
    *,
    number: str,
    name: str,
    exists: Callable[[str], bool],
    keep: Callable[[Fields], bool] = lambda fields: True,
) -> tuple[tuple[str, ...], tuple[Clip, ...]]:
    """Reads the CSV file of a published data set, and checks every line of it.

    Args:
        source: the data set's folder, with its sounds in `audio/`.
        path: of the CSV file in it.
        parse: makes a clip of a line, as yet without labels, its path from `audio/`;
            its ValueError says what is wrong.
        columns: that it must have, with a value in every line.
        number: the column with the number of a clip's class.
        name: the column with its name.
        exists: whether a path in `audio/` is there.
        keep: whether a line, checked as all are, is wanted.

    Returns:
        Class names in the order of their numbers, and clips, whose labels count the
        classes without gaps.

    Raises:
        InputError: if there is no such file, or one for all that is wrong with it.
    """
    table, audio = source / path, source / "audio"
    if not table.is_file():
        raise InputError(
            f"{source} has no {path}; give the folder that holds it and audio/ as "
            "source_dir"
        )

    def of_line(fields: Fields) -> tuple[Clip, tuple[int, str], bool]:
        if empty := [column for column in columns if not fields[column]]:
            raise ValueError(f"{empty[0]} is missing")
        pair = whole_number(number, fields[number]), fields[name]
        return parse(fields), pair, keep(fields)

    found, problems = read_csv(table, of_line, columns)
    lines = [line for _, line in found]
    problems += repeated(clip.filename for clip, _, _ in lines)
    problems += _ambiguous({pair for _, pair, _ in lines}, (number, name))
    problems += [
        f"{clip.path} is not in {audio}"
        for clip, _, _ in lines
        if not exists(str(clip.path))
    ]
    if problems:
        raise InputError(f"{table} has {len(problems)} faults: {listed(problems)}")
    kept = [(clip, pair) for clip, pair, wanted in lines if wanted]
    pairs = sorted({pair for _, pair in kept})
    clips = tuple(
        dataclasses.replace(
            clip, labels=(pairs.index(pair),), path=audio / str(clip.path)
        )
        for clip, pair in kept
    )
    return tuple(name for _, name in pairs), clips


def whole_number(name: str, text: str) -> int:
    """A number of digits; a ValueError names the column."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} is {text!r}, not a whole number")
    return int(text)


def repeated(values: Iterable[str]) -> list[str]:
    """A phrase for each value that comes several times."""
    counts = collections.Counter(values)
    return [f"{value} comes {n} times" for value, n in counts.items() if n > 1]


def _ambiguous(pairs: Iterable[tuple[int, str]], names: tuple[str, str]) -> list[str]:
    """A phrase for each number with two words, and each word with two numbers."""
    problems, pairs = [], sorted(pairs)
    for column, other in ((0, 1), (1, 0)):
        of_one = collections.defaultdict(list)
        for pair in pairs:
            of_one[pair[column]].append(str(pair[other]))
        problems += [
            f"{names[column]} {value} stands for {' and '.join(values)}"
            for value, values in of_one.items()
            if len(values) > 1
        ]
    return problems
