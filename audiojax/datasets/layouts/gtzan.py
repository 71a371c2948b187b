"""GTZAN: a hundred half-minute pieces of music of each of ten genres, without folds.

G. Tzanetakis, P. Cook, "Musical Genre Classification of Audio Signals", IEEE
Transactions on Speech and Audio Processing 2002. It holds some pieces twice and many by
one artist, which a random split has on both sides: B. L. Sturm, "The GTZAN dataset",
arXiv 1306.1461 (2013). Published lists of clips avoid that; see `read`.
"""

from __future__ import annotations

import collections
import logging
import re

from etils import epath

from audiojax.datasets import splits
from audiojax.datasets.layouts.table import noted, repeated, source_folder
from audiojax.datasets.recordings import Clip, Info, Settings
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)

GENRES = (
    *("blues", "classical", "country", "disco", "hiphop"),
    *("jazz", "metal", "pop", "reggae", "rock"),
)
NUM_CLIPS = 1000
# Where releases keep the genres' folders; "" is the folder given itself.
PLACES = ("genres", "genres_original", "")
# A clip's name, its genre in it, with or without what the format is called.
NAME = re.compile(rf"(({'|'.join(GENRES)})\.[0-9]{{5}})(\.[A-Za-z0-9]+)?")
# As published, it is no sound.
BROKEN = "jazz.00054"
# What published lists are called, in the order in which their folds are numbered.
LISTS = {
    "test": ("test_filtered.txt", "test.txt"),
    "validation": ("valid_filtered.txt", "valid.txt", "val.txt", "validation.txt"),
    "train": ("train_filtered.txt", "train.txt"),
}
# Held out where no list says what: the paper's share.
TEST_SHARE = 0.2

# File by clip, as in {"jazz.00054": "jazz/jazz.00054.wav"}.
Files = dict[str, str]


def read(settings: Settings) -> Info:
    """Finds the clips, and makes a test fold or reads published ones.

    The layout is `genres/GENRE/GENRE.NNNNN.wav`, or `genres_original/`, or the genres'
    folders themselves; any format will do, as .au in the first release.

    Without `split_dir`, fold 1 holds the paper's fifth for the test, of every genre the
    same number, and fold 2 the rest; the same for every run of a seed. (With
    `settings.split` "stratified", k folds are made instead: see `splits.chosen`.) With
    `split_dir`, fold 1 is the test list, fold 2 the validation list if there is one,
    and the highest the training list. Clips on no list are left out.

    Args:
        settings: source_dir, split_dir, and the seed of the split that is made.

    Raises:
        InputError: for a source that is missing or faulty, or lists that do not fit it.
    """
    if settings.split_dir is not None and settings.split is not None:
        raise InputError(
            f"config.data.split is {settings.split!r} and config.data.split_dir is "
            f"{settings.split_dir!r}; give one of them"
        )
    needed = (
        "GTZAN's folder with the genres' folders, or with genres/ or genres_original/ "
        "that holds them"
    )
    root = _root(source_folder(settings.source_dir, "gtzan", needed))
    files, others = _files(root)
    strays = "files are no clips by their names and are left out"
    report = noted(root, "no_clips", others, strays)
    if len(files) != NUM_CLIPS:
        logger.info("%s holds %d clips, not %d", root, len(files), NUM_CLIPS)
    genres = {clip: clip.partition(".")[0] for clip in files}
    classes = [genre for genre in GENRES if genre in genres.values()]
    if settings.split_dir is None:
        labels = [*genres.values()]
        test = splits.hold_out(labels, list(files), TEST_SHARE, settings.seed)
        fold = {c: 1 if held else 2 for c, held in zip(files, test, strict=True)}
    else:
        fold, left_out = _listed_folds(epath.Path(settings.split_dir), files)
        report |= left_out
    clips = tuple(
        Clip(name, (classes.index(genres[clip]),), fold[clip], name, path=root / name)
        for clip, name in files.items()
        if clip in fold
    )
    return Info(
        name="gtzan",
        classes=tuple(classes),
        sample_rate=settings.sample_rate,
        clips=clips,
        official_folds=settings.split_dir is not None,
        known_broken=(files[BROKEN],) if BROKEN in files else (),
        report=report,
        description="Half-minute pieces of music of ten genres.",
        homepage="http://marsyas.info/downloads/datasets.html",
    )


def _named(name: str) -> tuple[str, str, str]:
    """Clip, genre and suffix that a file's name tells; "" for what it lacks."""
    parts = NAME.fullmatch(name)
    return (parts[1], parts[2], parts[3] or "") if parts else ("", "", "")


def _root(source: epath.Path) -> epath.Path:
    """The folder that holds the genres' folders."""
    for place in PLACES:
        if any((source / place / genre).is_dir() for genre in GENRES):
            return source / place
    raise InputError(
        f"{source} has no folder of a genre ({GENRES[0]}/, {GENRES[1]}/, ...), nor in "
        "genres/ or genres_original/; give the folder that holds them as source_dir"
    )


def _files(root: epath.Path) -> tuple[Files, list[str]]:
    """The clips in order, and what else lies beside them; hidden files do not count.

    Raises:
        InputError: for all clips that lie in another genre's folder, or come twice.
    """
    names = sorted(
        f"{folder.name}/{path.name}"
        for folder in root.iterdir()
        if folder.name in GENRES and folder.is_dir()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )
    clips, others, problems = [], [], []
    for name in names:
        folder, _, file = name.partition("/")
        clip, genre, suffix = _named(file)
        if not suffix:
            others.append(name)
        elif genre != folder:
            problems.append(f"{name} is named for another genre")
        else:
            clips.append((clip, name))
    problems += repeated(clip for clip, _ in clips)
    if problems:
        raise InputError(
            f"{root} has {len(problems)} faults: {listed(problems)}; let each clip be "
            "there once, in its genre's folder"
        )
    return dict(clips), others


def _listed_folds(
    folder: epath.Path, files: Files
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Fold by clip, and a report on clips that are not in the lists, or only there.

    Raises:
        InputError: if a list is missing, or one for all that is wrong with them.
    """
    folder = folder.expanduser()
    paths, absent = [], []
    for part, names in LISTS.items():
        found = [folder / name for name in names if (folder / name).is_file()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise InputError(f"split_dir {folder} has {names}; keep the one to be used")
        if not found and part != "validation":
            absent.append(" or ".join(names))
        paths += found
    if absent:
        names = " and of ".join(absent)
        raise InputError(f"split_dir {folder} lacks a list of clips: none of {names}")
    fold: dict[str, int] = {}
    problems, places = [], collections.defaultdict(list)
    for number, path in enumerate(paths, 1):
        for line, clip in _clips(path, problems):
            fold[clip] = number
            places[clip].append(f"{path.name} line {line}")
    for clip, found in places.items():
        # Many copies of the set are without the broken one.
        if clip not in files and clip != BROKEN:
            problems.append(f"{found[0]}: there is no {clip}")
        if len(found) > 1:
            problems.append(f"{clip} is listed in {' and in '.join(found)}")
    if problems:
        raise InputError(f"{folder} has {len(problems)} faults: {listed(problems)}")
    missing = [clip for clip in fold if clip not in files]
    words = "clips are on no list and are left out"
    unlisted = [name for clip, name in files.items() if clip not in fold]
    return fold, {
        **noted(folder, "not_listed", unlisted, words),
        **noted(folder, "missing", missing, "clips are listed and not there"),
    }


def _clips(path: epath.Path, problems: list[str]) -> list[tuple[int, str]]:
    """Line number and clip of every line; what is no clip goes to the problems."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a list of clips ({error})") from error
    clips = []
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()):
            continue
        *folders, name = line.replace("\\", "/").split("/")
        clip, genre, _ = _named(name)
        if not clip:
            problems.append(f"{path.name} line {number}: {line!r} is no clip")
        elif folders and folders[-1] in {*GENRES} - {genre}:
            problems.append(f"{path.name} line {number}: {line!r} has two genres")
        else:
            clips.append((number, clip))
    return clips
