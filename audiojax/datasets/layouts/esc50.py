"""ESC-50 and its subset ESC-10: five-second clips of sounds around us, in five folds.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia
2015, https://doi.org/10.1145/2733373.2806390. Any folder of the same layout can be
read: `meta/esc50.csv` and the files it names in `audio/`.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import PurePosixPath

from etils import epath

from audiojax.datasets.layouts.table import (
    Row,
    Table,
    ambiguous,
    numbered,
    published_lines,
    repeated,
    source_folder,
    whole_number,
)
from audiojax.datasets.recordings import Settings
from audiojax.datasets.store import download, folders
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
FOLDS = range(1, 6)
DESCRIPTION = "Five-second clips of sounds around us, in five folds."
NUM_CLASSES = {"esc50": 50, "esc10": 10}

# The last revision. Its sum is the one that several public projects note for this file.
RELEASE = download.Archive(
    name="ESC-50-33c8ce9eb2cf",
    url="https://github.com/karolpiczak/ESC-50/archive/"
    "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip",
    sha256="661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
    size=645_832_161,
)
# Freesound recordings of which the release has clips in two folds each, against its own
# rule; as all published results use those folds, they stay as they are.
SHARED_SOURCES = ("131943", "134049", "209698", "234879")


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of `meta/esc50.csv`, in the columns' own words."""

    filename: str
    fold: int
    target: int
    category: str
    esc10: bool
    src_file: str
    take: str


def read(name: str, settings: Settings) -> Table:
    """Reads ESC-50's or ESC-10's table and checks every line of it.

    Args:
        name: "esc50" for all lines, "esc10" for those whose `esc10` is True.
        settings: source_dir is the folder with `meta/` and `audio/`, or None to
            download it to data_dir.

    Raises:
        InputError: for a source that is missing, or one for all faulty lines together.
    """
    source_dir = settings.source_dir
    if source_dir is None:
        store = folders.data_dir(settings.data_dir)
        source_dir = str(download.fetch(RELEASE, store))
    source = source_folder(source_dir, "ESC-50")
    path = source / "meta" / "esc50.csv"
    if not path.is_file():
        raise InputError(
            f"{source} has no meta/esc50.csv; give the folder that holds ESC-50's "
            "meta/ and audio/ as source_dir"
        )
    lines = _read_lines(path, source / "audio")
    if name == "esc10":
        lines = [line for line in lines if line.esc10]
    if not lines:
        raise InputError(f"{path} has no rows for {name}")
    classes, labels = numbered((line.target, line.category) for line in lines)
    found, whole = len(classes), NUM_CLASSES[name]
    if found != whole:
        logger.info(
            "%s holds %d clips of %d classes, not all %d of %s: labels count those %d",
            *(path, len(lines), found, whole, name, found),
        )
    rows = tuple(
        Row(
            path=source / "audio" / line.filename,
            filename=line.filename,
            labels=(labels[line.target],),
            fold=line.fold,
            source=line.src_file,
        )
        for line in lines
    )
    return Table(
        name=name,
        classes=classes,
        rows=rows,
        shared_sources=_shared(rows),
        description=DESCRIPTION,
        homepage="https://github.com/karolpiczak/ESC-50",
    )


def _shared(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """Those of `SHARED_SOURCES` that are in several folds here."""
    return tuple(
        source
        for source in SHARED_SOURCES
        if len({row.fold for row in rows if row.source == source}) > 1
    )


def _read_lines(path: epath.Path, audio: epath.Path) -> list[Line]:
    """All lines of the CSV, or one error for all that is wrong with them."""
    lines, problems = published_lines(path, COLUMNS, _parse)
    problems += repeated(line.filename for line in lines)
    pairs = ((line.target, line.category) for line in lines)
    problems += ambiguous(pairs, ("target", "category"))
    problems += [
        f"{line.filename} is not in {audio}"
        for line in lines
        if not (audio / line.filename).is_file()
    ]
    if problems:
        raise InputError(f"{path} has {len(problems)} faults: {listed(problems)}")
    return lines


def _parse(text: dict[str, str]) -> Line:
    """One line of the CSV; a ValueError says what is wrong with it."""
    if text["fold"] not in map(str, FOLDS):
        raise ValueError(f"fold is {text['fold']!r}, not one of 1 to 5")
    if text["esc10"] not in ("True", "False"):
        raise ValueError(f"esc10 is {text['esc10']!r}, not True or False")
    name = PurePosixPath(text["filename"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"filename {text['filename']!r} leaves the folder audio/")
    return Line(
        filename=str(name),
        fold=int(text["fold"]),
        target=whole_number("target", text["target"]),
        category=text["category"],
        esc10=text["esc10"] == "True",
        src_file=text["src_file"],
        take=text["take"],
    )
