"""Anyone's own sounds, one folder a class."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from audiojax.datasets import splits
from audiojax.datasets.layouts.table import noted, source_folder
from audiojax.datasets.recordings import Clip, Info, Settings
from audiojax.errors import InputError, listed
from audiojax.sounds import SUFFIXES

# What a publisher calls the parts of a data set, and what they are here.
PARTS = {
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "train": "train",
}
# In which they are numbered as folds, those there are: the first is tested on.
ORDER = ("test", "validation", "train")
# A folder that macOS puts into archives.
JUNK = "__MACOSX"


def read(settings: Settings) -> Info:
    """Finds the sounds of a folder, without opening any.

    The layout is SOURCE_DIR/CLASS/.../FILE, and folds are made, each file being its own
    source; or SOURCE_DIR/{train,validation,test}/CLASS/.../FILE, where test is fold 1,
    validation, if there is one, fold 2, and train the highest. Classes and files come
    sorted by name. Files and folders whose names begin with a dot are passed over;
    those that are no sounds by their names go into the report.

    Args:
        settings: `source_dir`, and of made folds `num_folds` and `seed`.

    Raises:
        InputError: if it is not such a folder, has an empty class or symbolic links
            that lead out of it, or sounds outside of its classes.
    """
    needed = "a folder with a folder of sounds for each class"
    root = Path(source_folder(settings.source_dir, "audio_folder", needed))
    parts = _parts(root)
    depth = 2 if parts else 1
    names, others = _files(root, depth)
    class_of = {name: name.split("/")[depth - 1] for name in names}
    classes = _classes(root, parts, set(class_of.values()))
    label = {name: i for i, name in enumerate(classes)}
    clips = tuple(
        Clip(name, (label[kind],), parts.get(name.split("/")[0], 1), name, root / name)
        for name, kind in class_of.items()
    )
    words = "files are no sounds by their names and are left out"
    info = Info(
        name="audio_folder",
        classes=classes,
        sample_rate=settings.sample_rate,
        clips=clips,
        report=noted(root, "not_sounds", others, words),
    )
    return info if parts else splits.made(info, settings.num_folds, settings.seed)


def folds_of(names: Collection[str]) -> dict[str, int]:
    """The fold, from 1, of each part, by names such as "train" and "val".

    Raises:
        InputError: if two of them are the same part, or one is missing.
    """
    kinds = {PARTS[name.lower()]: name for name in names}
    if len(kinds) < len(names) or "train" not in kinds or len(kinds) < 2:
        raise InputError(
            f"the parts are {', '.join(sorted(names))}; give train, and one each of "
            "test and validation, or one of the two"
        )
    order = [kinds[kind] for kind in ORDER if kind in kinds]
    return {name: fold for fold, name in enumerate(order, 1)}


def outside(path: Path, root: Path) -> str | None:
    """What is wrong with where a path leads to, links followed; None if nothing is."""
    # Unlike `Path.resolve` this bears links in a circle.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return "is a symbolic link out of the folder"
    if path.is_symlink() and not os.path.exists(path):
        return "is a symbolic link to nothing"
    return None


def _parts(root: Path) -> dict[str, int]:
    """The parts' folds by name; none if the folders are classes."""
    names = [path.name for path in _entries(root) if path.is_dir()]
    kinds = {PARTS.get(name.lower()) for name in names}
    if "train" not in kinds or None in kinds or len(names) < 2:
        return {}
    return folds_of(names)


def _entries(folder: Path) -> list[Path]:
    """What a folder shows, by name: a file system has no order."""
    try:
        names = sorted(name for name in os.listdir(folder) if name != JUNK)
        return [folder / name for name in names if not name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} can't be read ({error.strerror})") from error


def _files(root: Path, depth: int) -> tuple[list[str], list[str]]:
    """Names of the sounds and of other files, as `a/b/c.wav` from the root.

    Raises:
        InputError: for sounds that lie less deep than the classes, for links out of
            the tree, and for what is neither file nor folder.
    """
    sounds, others, problems = [], [], []
    seen: dict[str, str] = {}
    true_root = os.path.realpath(root)
    for path in _walk(root, root, problems):
        name = path.relative_to(root).as_posix()
        target = os.path.realpath(path) if path.is_symlink() else f"{true_root}/{name}"
        if path.suffix.lower() not in SUFFIXES:
            others.append(name)
        elif name.count("/") < depth:
            problems.append(f"{name} is in no class's folder")
        elif (first := seen.setdefault(target, name)) != name:
            problems.append(f"{first} and {name} are one file, by a symbolic link")
        else:
            sounds.append(name)
    if problems:
        raise InputError(f"{root} has what can't be used: {listed(problems)}")
    return sounds, others


def _walk(folder: Path, root: Path, problems: list[str]) -> Iterator[Path]:
    """All files that are not hidden, by name; what can't be followed is a problem."""
    for path in _entries(folder):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() and (wrong := outside(path, root)):
            problems.append(f"{name} {wrong}")
        elif path.is_dir() and path.is_symlink():
            problems.append(f"{name} is a symbolic link to a folder of the same tree")
        elif path.is_dir():
            yield from _walk(path, root, problems)
        elif path.is_file():
            yield path
        else:
            problems.append(f"{name} is neither a file nor a folder")


def _classes(root: Path, parts: Iterable[str], found: set[str]) -> tuple[str, ...]:
    """Class names in order; every one must be among those found to hold a sound."""
    tops = [root / part for part in parts] or [root]
    folders = {path.name for top in tops for path in _entries(top) if path.is_dir()}
    if not folders:
        raise InputError(
            f"{root} has no folders of classes; put the sounds of each class into a "
            "folder with its name, or list them in a CSV file and set "
            "config.data.name='audio_csv'"
        )
    if empty := sorted(folders - found):
        raise InputError(
            f"{root} has folders of classes without a sound: {listed(empty)}; fill "
            "them or delete them"
        )
    return tuple(sorted(folders))
