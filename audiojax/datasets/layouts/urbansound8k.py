"""UrbanSound8K: slices of city sounds, up to four seconds long, in ten folds.

J. Salamon, C. Jacoby, J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research",
ACM Multimedia 2014, https://doi.org/10.1145/2647868.2655045. Any folder of the same
layout can be read: `metadata/UrbanSound8K.csv` and the files it names in
`audio/fold1/` to `audio/fold10/`.
"""

from __future__ import annotations

import logging
import math
import re
from pathlib import PurePosixPath

from etils import epath

from audiojax.datasets.layouts.table import (
    Fields,
    noted,
    published,
    source_folder,
    whole_number,
)
from audiojax.datasets.recordings import Clip, Info, Settings
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

HOMEPAGE = "https://urbansounddataset.weebly.com/urbansound8k.html"
TABLE = "metadata/UrbanSound8K.csv"
COLUMNS = (
    *("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID"),
    "class",
)
FOLDS = range(1, 11)
SALIENCES = {"1": "foreground", "2": "background"}
NUM_CLIPS, NUM_CLASSES = 8732, 10
# fsID-classID-occurrence-slice, and what the format is called.
NAME = re.compile(r"([0-9]+)-([0-9]+)-([0-9]+)-([0-9]+)\.[A-Za-z0-9]+")


def read(settings: Settings) -> Info:
    """Reads the CSV and checks every line of it, before any audio is read.

    Folds are the official ten: results on others can't be compared. A clip's source is
    the Freesound recording that it is a slice of.

    Args:
        settings: source_dir is the folder with `metadata/` and `audio/`.

    Raises:
        InputError: for a source that is missing, or one for all faulty lines together.
    """
    source = source_folder(
        settings.source_dir,
        "urbansound8k",
        "the folder with UrbanSound8K's metadata/ and audio/; "
        f"{HOMEPAGE} tells how to get it",
    )
    audio = source / "audio"
    found = _found(audio)
    classes, clips = published(
        source,
        TABLE,
        _clip,
        COLUMNS,
        number="classID",
        name="class",
        exists=found.__contains__,
    )
    if not clips:
        raise InputError(f"{source / TABLE} has no rows; expected one for each clip")
    if (len(clips), len(classes)) != (NUM_CLIPS, NUM_CLASSES):
        logger.info(
            "%s holds %d clips of %d classes, not the %d of %d of the release",
            *(source, len(clips), len(classes), NUM_CLIPS, NUM_CLASSES),
        )
    others = sorted(found - {f"fold{clip.fold}/{clip.filename}" for clip in clips})
    return Info(
        name="urbansound8k",
        classes=classes,
        sample_rate=settings.sample_rate,
        clips=clips,
        report=noted(
            audio, "not_listed", others, "files that the CSV does not name are left out"
        ),
        description="Slices of city sounds, up to four seconds, in ten folds.",
        homepage=HOMEPAGE,
    )


def _found(audio: epath.Path) -> set[str]:
    """What lies in `audio/`'s folds, as in "fold1/x.wav"; hidden files do not count."""
    return {
        f"{folder.name}/{path.name}"
        for folder in audio.glob("fold*")
        if folder.is_dir()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def _clip(fields: Fields) -> Clip:
    """One line of the CSV; a ValueError says what is wrong with it."""
    if fields["fold"] not in map(str, FOLDS):
        raise ValueError(f"fold is {fields['fold']!r}, not one of 1 to 10")
    if fields["salience"] not in SALIENCES:
        raise ValueError(f"salience is {fields['salience']!r}, not 1 or 2")
    start, end = (_seconds(name, fields[name]) for name in ("start", "end"))
    if start > end:
        raise ValueError(f"start is {fields['start']} s, after end, {fields['end']} s")
    whole_number("fsID", fields["fsID"])
    name = fields["slice_file_name"]
    parts = NAME.fullmatch(name)
    if parts is None:
        raise ValueError(
            f"slice_file_name is {name!r}, not fsID-classID-occurrence-slice.wav"
        )
    for part, column in zip(parts.groups(), ("fsID", "classID"), strict=False):
        if part != fields[column]:
            raise ValueError(f"{name} has {column} {part} in it, not {fields[column]}")
    path = PurePosixPath(f"fold{fields['fold']}", name)
    return Clip(name, (), int(fields["fold"]), fields["fsID"], path)


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {text!r}, not a number of seconds")
    return value
