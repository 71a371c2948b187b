"""What a data set's layout is read into: one row a sound file."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from etils import epath

from audiojax.datasets.recordings import Clip, Info
from audiojax.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Row:
    """One sound file.

    Attributes:
        path: where it lies.
        filename: its name within the data set, unique there.
        labels: class numbers, from 0: one, unless the data set is multi-label.
        fold: the part of the data set it stands in, from 1.
        source: the recording it was cut from; clips of one recording sound alike.
    """

    path: os.PathLike[str]
    filename: str
    labels: tuple[int, ...]
    fold: int
    source: str


@dataclasses.dataclass(frozen=True)
class Table:
    """All that is known of a data set before a sound file is opened.

    Attributes:
        name: as in `DATASETS`.
        classes: class names by label.
        rows: by clip number.
        multi_label: whether a clip may have several labels, or none.
        official_folds: whether the folds are the publisher's; False for made ones.
        shared_sources: recordings that the publisher's own folds have on both sides.
        known_broken: file names that are known to be broken as published: left out
            with a warning if they can't be read, whatever `Settings.on_bad_file` says.
        report: what was noticed while the layout was read, in words of JSON.
        description: of the data set, in a sentence.
        homepage: of the data set, an address.
    """

    name: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    multi_label: bool = False
    official_folds: bool = True
    shared_sources: tuple[str, ...] = ()
    known_broken: tuple[str, ...] = ()
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    description: str = ""
    homepage: str = ""

    def info(self, sample_rate: int) -> Info:
        """What is known to who uses the data set, at the rate wanted in Hz."""
        return Info(
            name=self.name,
            classes=self.classes,
            sample_rate=sample_rate,
            clips=tuple(
                Clip(row.filename, row.labels, row.fold, row.source)
                for row in self.rows
            ),
            shared_sources=self.shared_sources,
            multi_label=self.multi_label,
            official_folds=self.official_folds,
            report=self.report,
        )


def source_folder(source_dir: str, name: str) -> epath.Path:
    """The folder that `source_dir` names, here or in a bucket.

    Raises:
        InputError: if it is none; the data set's `name` says what to give.
    """
    folder = epath.Path(source_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"source_dir {source_dir} is not a folder; give {name}'s")
    return folder


def published_lines(
    path: epath.Path, columns: Sequence[str], parse: Callable[[dict[str, str]], T]
) -> tuple[list[T], list[str]]:
    """Reads the CSV file that a published data set comes with.

    Args:
        path: of the file; a byte-order mark and any line ends are understood.
        columns: that it must have, with a value in every line; others are passed over.
        parse: makes something of a line's values; its ValueError says what is wrong.

    Returns:
        What `parse` made of the lines, and what is wrong with the others.

    Raises:
        InputError: if it is no such file.
    """
    parsed, problems = [], []
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"{path} lacks the columns {', '.join(missing)}; expected "
                f"{', '.join(columns)}"
            )
        for fields in reader:
            try:
                empty = [column for column in columns if not fields[column]]
                if empty:
                    raise ValueError(f"{empty[0]} is missing")
                parsed.append(parse(fields))
            except ValueError as error:
                problems.append(f"line {reader.line_num}: {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file ({error})") from error
    return parsed, problems


def whole_number(name: str, text: str) -> int:
    """A number of digits; a ValueError names the column."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} is {text!r}, not a whole number")
    return int(text)


def numbered(
    pairs: Iterable[tuple[int, str]],
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in the order of their numbers, and each number's label.

    Args:
        pairs: (number, name) as found; labels count the numbers without gaps.
    """
    names = dict(sorted(set(pairs)))
    return tuple(names.values()), {number: i for i, number in enumerate(names)}


def repeated(values: Iterable[str]) -> list[str]:
    """A phrase for each value that comes several times."""
    counts = collections.Counter(values)
    return [f"{value} comes {n} times" for value, n in counts.items() if n > 1]


def ambiguous(pairs: Iterable[tuple[Any, Any]], names: tuple[str, str]) -> list[str]:
    """A phrase for each number with two words, and each word with two numbers.

    Args:
        pairs: (number, word) as found.
        names: of their columns.
    """
    problems, pairs = [], sorted(set(pairs))
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
