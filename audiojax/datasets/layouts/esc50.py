"""ESC-50 and its subset ESC-10: five-second clips of sounds around us, in five folds.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia
2015, https://doi.org/10.1145/2733373.2806390. Any folder of the same layout can be
read: `meta/esc50.csv` and the files it names in `audio/`.
"""

from __future__ import annotations

import logging
from pathlib import PurePosixPath

from audiojax.datasets.layouts.table import Fields, published, source_folder
from audiojax.datasets.recordings import Clip, Info, Settings
from audiojax.datasets.store import data_dir, download
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
FOLDS = range(1, 6)
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


def read(name: str, settings: Settings) -> Info:
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
        source_dir = str(download.fetch(RELEASE, data_dir(settings.data_dir)))
    source = source_folder(source_dir, name, "ESC-50's, with meta/ and audio/")
    classes, clips = published(
        source,
        "meta/esc50.csv",
        _clip,
        COLUMNS,
        number="target",
        name="category",
        exists=lambda path: (source / "audio" / path).is_file(),
        keep=lambda fields: name == "esc50" or fields["esc10"] == "True",
    )
    if not clips:
        raise InputError(f"{source}/meta/esc50.csv has no rows for {name}")
    if len(classes) != NUM_CLASSES[name]:
        logger.info(
            "%s holds %d clips of %d classes, not all %d of %s: labels count those",
            *(source, len(clips), len(classes), NUM_CLASSES[name], name),
        )
    return Info(
        name=name,
        classes=classes,
        sample_rate=settings.sample_rate,
        clips=clips,
        shared_sources=tuple(
            source
            for source in SHARED_SOURCES
            if len({clip.fold for clip in clips if clip.source == source}) > 1
        ),
        description="Five-second clips of sounds around us, in five folds.",
        homepage="https://github.com/karolpiczak/ESC-50",
    )


def _clip(fields: Fields) -> Clip:
    """One line of the CSV; a ValueError says what is wrong with it."""
    if fields["fold"] not in map(str, FOLDS):
        raise ValueError(f"fold is {fields['fold']!r}, not one of 1 to 5")
    if fields["esc10"] not in ("True", "False"):
        raise ValueError(f"esc10 is {fields['esc10']!r}, not True or False")
    path = PurePosixPath(fields["filename"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"filename {fields['filename']!r} leaves the folder audio/")
    return Clip(str(path), (), int(fields["fold"]), fields["src_file"], path)
