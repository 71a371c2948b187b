"""Anyone's own sounds, listed in a CSV file."""

from __future__ import annotations

import collections
import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from audiojax.datasets import splits
from audiojax.datasets.layouts.audio_folder import PARTS, fold_order, outside
from audiojax.datasets.layouts.table import Row, Table
from audiojax.datasets.recordings import Settings
from audiojax.errors import InputError, listed

NEEDED = ("filename", "label")
# What else is read; any other column is the user's own.
OPTIONAL = ("fold", "split", "group")
# Taken where a folder has several CSV files.
PREFERRED = "metadata.csv"
# Between the labels of one cell.
SEPARATOR = ";"


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the CSV, checked by itself.

    Attributes:
        number: of the line, from 1.
        filename: relative to the CSV's folder.
        labels: as written; empty for an empty cell.
        fold: from 1; 0 without such a column.
        split: one of `PARTS`; "" without such a column.
        group: "" without such a column, or where the cell is empty.
    """

    number: int
    filename: str
    labels: tuple[str, ...]
    fold: int
    split: str
    group: str


def read(settings: Settings) -> Table:
    """Reads the CSV and checks every row, before any sound is opened.

    Columns are filename, relative to the CSV's folder; label; and if there are such:
    fold, a number from 1; or split, train and one or both of validation and test, which
    become folds as in `audio_folder`; and group, clips of which stay together when
    folds are made, as they are without fold and split. Several labels in a cell stand
    with `;` between them: if any row has several, the data set is multi-label, and in
    it an empty cell means none of the classes. Classes come sorted by name.

    Args:
        settings: `source_dir`, the CSV or a folder with just one or with metadata.csv;
            and of made folds `num_folds` and `seed`.

    Raises:
        InputError: for what is no such file, or one for all faulty rows together.
    """
    path = _find(settings.source_dir)
    root = path.parent
    lines, problems = [], []
    for number, fields in _fields(path):
        try:
            lines.append(_parse(number, fields))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    multi_label = any(len(line.labels) > 1 for line in lines)
    problems += _contradictions(lines, multi_label)
    problems += [
        f"line {line.number}: {wrong}"
        for line in lines
        if (wrong := _unusable(root / line.filename, line.filename, root))
    ]
    if problems:
        raise InputError(f"{path} has {len(problems)} faults: {listed(problems)}")
    if not lines:
        raise InputError(f"{path} has no rows; give one for each clip")
    table = _table(root, lines, multi_label)
    if lines[0].fold or lines[0].split:
        return table
    return splits.made(table, settings, [row.source for row in table.rows])


def _table(root: Path, lines: list[Line], multi_label: bool) -> Table:
    classes = sorted({label for line in lines for label in line.labels})
    label = {name: i for i, name in enumerate(classes)}
    parts = sorted({line.split for line in lines if line.split})
    fold = {name: i for i, name in enumerate(fold_order(parts), 1)} if parts else {}
    rows = tuple(
        Row(
            path=root / line.filename,
            filename=line.filename,
            labels=tuple(sorted(label[name] for name in line.labels)),
            fold=fold.get(line.split, line.fold),
            source=line.group or line.filename,
        )
        for line in lines
    )
    return Table("audio_csv", tuple(classes), rows, multi_label=multi_label)


def _find(source_dir: str | None) -> Path:
    """The CSV file that source_dir is or holds."""
    if source_dir is None:
        raise InputError(
            "audio_csv needs config.data.source_dir: a CSV file, or a folder with one"
        )
    path = Path(source_dir).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(
            f"source_dir {path} is not there; give a CSV file, or a folder with one"
        )
    if (path / PREFERRED).is_file():
        return path / PREFERRED
    found = sorted(file for file in path.glob("*.csv") if not file.name.startswith("."))
    if len(found) != 1:
        names = f" ({listed(file.name for file in found)})" if found else ""
        raise InputError(
            f"source_dir {path} has {len(found)} CSV files{names}; name the right one "
            f"as source_dir, or call it {PREFERRED}"
        )
    return found[0]


def _fields(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column of every row; an InputError if it is no table."""
    try:
        # A byte-order mark, as Excel writes it, is no part of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            columns = next(lines, [])
            _check_columns(path, columns)
            number = lines.line_num + 1
            for cells in lines:
                if cells:  # an empty line is none of the table's
                    yield number, _by_column(path, number, columns, cells)
                number = lines.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not in UTF-8 ({error}); save it as CSV in UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file ({error})") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [name for name in NEEDED if name not in columns]
    found = ", ".join(map(repr, columns)) or "none"
    if missing and len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        raise InputError(
            f"{path} has one column only, {found}; put commas between the columns"
        )
    if missing:
        raise InputError(
            f"{path} lacks the columns {', '.join(missing)}; it has {found}, expected "
            f"are {', '.join(NEEDED)}, and if wanted {', '.join(OPTIONAL)}"
        )
    twice = [name for name, n in collections.Counter(columns).items() if n > 1]
    if {*twice} & {*NEEDED, *OPTIONAL}:
        raise InputError(f"{path} has columns twice: {', '.join(twice)}; keep one each")
    if "fold" in columns and "split" in columns:
        raise InputError(f"{path} has the columns fold and split; keep one of them")


def _by_column(
    path: Path, number: int, columns: list[str], cells: list[str]
) -> dict[str, str]:
    if len(cells) != len(columns):
        raise InputError(
            f"{path}, line {number}: {len(cells)} cells, but the first line names "
            f"{len(columns)} columns; put a text that holds a comma into quotes"
        )
    return dict(zip(columns, cells, strict=True))


def _parse(number: int, fields: dict[str, str]) -> Line:
    """One row; a ValueError says what is wrong with it."""
    name = PurePosixPath(fields["filename"])
    if not fields["filename"]:
        raise ValueError("filename is missing")
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(
            f"filename {fields['filename']!r} leaves the CSV's folder; give it from "
            "there"
        )
    labels = tuple(fields["label"].split(SEPARATOR)) if fields["label"] else ()
    if any(label != " ".join(label.split()) or not label for label in labels):
        raise ValueError(
            f"label {fields['label']!r} has blanks at an end, two in a row, a line "
            f"break, or nothing beside a {SEPARATOR!r}; write each label one way"
        )
    if len(set(labels)) < len(labels):
        raise ValueError(f"label {fields['label']!r} names a class twice")
    fold, split = fields.get("fold", "0"), fields.get("split", "")
    if "fold" in fields and not (fold.isascii() and fold.isdigit() and int(fold)):
        raise ValueError(f"fold is {fold!r}, not a whole number from 1")
    if "split" in fields and split.lower() not in PARTS:
        raise ValueError(f"split is {split!r}, not one of {', '.join(PARTS)}")
    return Line(
        number=number,
        filename=str(name),
        labels=labels,
        fold=int(fold),
        split=split.lower(),
        group=fields.get("group", ""),
    )


def _contradictions(lines: list[Line], multi_label: bool) -> list[str]:
    """Files that come twice, and cells without a label where each needs one."""
    problems = []
    first: dict[str, int] = {}
    for line in lines:
        if (before := first.setdefault(line.filename, line.number)) != line.number:
            problems.append(
                f"line {line.number}: {line.filename} is in line {before} already; "
                f"give several labels in one cell, with {SEPARATOR!r} between them"
            )
        if not line.labels and not multi_label:
            problems.append(
                f"line {line.number}: label is missing, which only means something "
                "where another row has several"
            )
    return problems


def _unusable(path: Path, name: str, root: Path) -> str | None:
    """Why a path can't be a sound file; None if it can."""
    try:
        if wrong := outside(path, root):
            return f"{name} {wrong}"
        if path.is_dir():
            return f"{name} is a folder, not a sound file"
        if path.is_file():
            return None
        hint = "; write / between folders" if "\\" in name else ""
        return f"{name} is not in {root}{hint}"
    except (OSError, ValueError) as error:  # too long, or not a name at all
        return f"{name!r} can't be a file ({error})"
