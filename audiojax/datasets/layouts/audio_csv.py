"""Anyone's own sounds, listed in a CSV file."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

from audiojax.datasets import splits
from audiojax.datasets.layouts.audio_folder import PARTS, folds_of, outside
from audiojax.datasets.layouts.table import Fields, read_csv
from audiojax.datasets.recordings import Clip, Info, Settings
from audiojax.errors import InputError, listed

NEEDED = ("filename", "label")
# What else is read; any other column is the user's own.
OPTIONAL = ("fold", "split", "group")
# Taken where a folder has several CSV files.
PREFERRED = "metadata.csv"
# Between the labels of one cell.
SEPARATOR = ";"

# A clip, whose labels and fold are yet to be numbered, its classes, and its split.
Row = tuple[Clip, tuple[str, ...], str]


def read(settings: Settings) -> Info:
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
    lines, problems = read_csv(path, _parse, NEEDED, OPTIONAL)
    multi_label = any(len(labels) > 1 for _, (_, labels, _) in lines)
    first: dict[str, int] = {}
    for number, (clip, labels, _) in lines:
        if (before := first.setdefault(clip.filename, number)) != number:
            problems.append(
                f"line {number}: {clip.filename} is in line {before} already; give "
                f"several labels in one cell, with {SEPARATOR!r} between them"
            )
        if not labels and not multi_label:
            problems.append(
                f"line {number}: label is missing, which only means something where "
                "another row has several"
            )
        if wrong := _unusable(root / clip.filename, clip.filename, root):
            problems.append(f"line {number}: {wrong}")
    if problems:
        raise InputError(f"{path} has {len(problems)} faults: {listed(problems)}")
    if not lines:
        raise InputError(f"{path} has no rows; give one for each clip")
    rows = [row for _, row in lines]
    classes = sorted({label for _, labels, _ in rows for label in labels})
    number_of = {name: i for i, name in enumerate(classes)}
    parts = {split for _, _, split in rows if split}
    fold = folds_of(parts) if parts else {}
    clips = tuple(
        dataclasses.replace(
            clip,
            labels=tuple(sorted(number_of[label] for label in labels)),
            fold=fold.get(split, clip.fold),
            path=root / clip.filename,
        )
        for clip, labels, split in rows
    )
    info = Info(
        name="audio_csv",
        classes=tuple(classes),
        sample_rate=settings.sample_rate,
        clips=clips,
        multi_label=multi_label,
    )
    given = parts or clips[0].fold
    return info if given else splits.made(info, settings.num_folds, settings.seed)


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


def _parse(fields: Fields) -> Row:
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
    source = fields.get("group") or str(name)
    return Clip(str(name), (), int(fold), source), labels, split.lower()


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
