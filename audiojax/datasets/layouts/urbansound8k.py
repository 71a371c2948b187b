"""UrbanSound8K: slices of city sounds, up to four seconds long, in ten folds.

J. Salamon, C. Jacoby, J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research",
ACM Multimedia 2014, https://doi.org/10.1145/2647868.2655045. Any folder of the same
layout can be read: `metadata/UrbanSound8K.csv` and the files it names in
`audio/fold1/` to `audio/fold10/`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re

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
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)

HOMEPAGE = "https://urbansounddataset.weebly.com/urbansound8k.html"
COLUMNS = (
    *("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID"),
    "class",
)
FOLDS = range(1, 11)
SALIENCES = {"1": "foreground", "2": "background"}
NUM_CLIPS, NUM_CLASSES = 8732, 10
# fsID-classID-occurrence-slice, and what the format is called.
NAME = re.compile(r"([0-9]+)-([0-9]+)-([0-9]+)-([0-9]+)\.[A-Za-z0-9]+")


@dataclasses.dataclass(frozen=True)
class Line:
    """What is used of one line of the CSV."""

    filename: str
    recording: str
    fold: int
    class_id: int
    class_name: str

    @property
    def place(self) -> str:
        """Where its file lies in `audio/`."""
        return f"fold{self.fold}/{self.filename}"


def read(settings: Settings) -> Table:
    """Reads the CSV and checks every line of it, before any audio is read.

    Folds are the official ten: results on others can't be compared. A clip's source is
    the Freesound recording that it is a slice of.

    Args:
        settings: source_dir is the folder with `metadata/` and `audio/`.

    Raises:
        InputError: for a source that is missing, or one for all faulty lines together.
    """
    if settings.source_dir is None:
        raise InputError(
            "urbansound8k needs config.data.source_dir: the folder with UrbanSound8K's "
            f"metadata/ and audio/; {HOMEPAGE} tells how to get it"
        )
    source = source_folder(settings.source_dir, "UrbanSound8K")
    path = source / "metadata" / "UrbanSound8K.csv"
    if not path.is_file():
        raise InputError(
            f"{source} has no metadata/UrbanSound8K.csv; give the folder that holds "
            "UrbanSound8K's metadata/ and audio/ as source_dir"
        )
    found = _found(source / "audio")
    lines, problems = published_lines(path, COLUMNS, _parse)
    problems += repeated(line.filename for line in lines)
    pairs = ((line.class_id, line.class_name) for line in lines)
    problems += ambiguous(pairs, ("classID", "class"))
    problems += [
        f"{line.place} is not in {source / 'audio'}"
        for line in lines
        if line.place not in found
    ]
    if problems:
        raise InputError(f"{path} has {len(problems)} faults: {listed(problems)}")
    if not lines:
        raise InputError(f"{path} has no rows; expected one for each clip")
    others = sorted(found - {line.place for line in lines})
    return _table(source / "audio", lines, others)


def _found(audio: epath.Path) -> set[str]:
    """What lies in `audio/`'s folds, as in "fold1/x.wav"; hidden files do not count."""
    folders = [folder for folder in audio.glob("fold*") if folder.is_dir()]
    return {
        f"{folder.name}/{path.name}"
        for folder in folders
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def _parse(text: dict[str, str]) -> Line:
    """One line of the CSV; a ValueError says what is wrong with it."""
    if text["fold"] not in map(str, FOLDS):
        raise ValueError(f"fold is {text['fold']!r}, not one of 1 to 10")
    if text["salience"] not in SALIENCES:
        raise ValueError(f"salience is {text['salience']!r}, not 1 or 2")
    start, end = (_seconds(name, text[name]) for name in ("start", "end"))
    if start > end:
        raise ValueError(f"start is {text['start']} s, after end, {text['end']} s")
    whole_number("fsID", text["fsID"])
    class_id = whole_number("classID", text["classID"])
    name = text["slice_file_name"]
    parts = NAME.fullmatch(name)
    if parts is None:
        raise ValueError(
            f"slice_file_name is {name!r}, not fsID-classID-occurrence-slice.wav"
        )
    for part, column in zip(parts.groups(), ("fsID", "classID"), strict=False):
        if part != text[column]:
            raise ValueError(f"{name} has {column} {part} in it, not {text[column]}")
    return Line(
        filename=name,
        recording=text["fsID"],
        fold=int(text["fold"]),
        class_id=class_id,
        class_name=text["class"],
    )


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {text!r}, not a number of seconds")
    return value


def _table(audio: epath.Path, lines: list[Line], others: list[str]) -> Table:
    classes, labels = numbered((line.class_id, line.class_name) for line in lines)
    if (len(lines), len(classes)) != (NUM_CLIPS, NUM_CLASSES):
        logger.info(
            "%s holds %d clips of %d classes, not the %d of %d of the release",
            *(audio.parent, len(lines), len(classes), NUM_CLIPS, NUM_CLASSES),
        )
    if others:
        logger.warning(
            "%s: %d files that the CSV does not name are left out: %s",
            *(audio, len(others), listed(others)),
        )
    rows = tuple(
        Row(
            path=audio / line.place,
            filename=line.filename,
            labels=(labels[line.class_id],),
            fold=line.fold,
            source=line.recording,
        )
        for line in lines
    )
    return Table(
        name="urbansound8k",
        classes=classes,
        rows=rows,
        report={"not_listed": others} if others else {},
        description="Slices of city sounds, up to four seconds, in ten folds.",
        homepage=HOMEPAGE,
    )
