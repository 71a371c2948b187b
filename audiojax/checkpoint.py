"""What a checkpoint is on disk, read without changing anything.

A run's checkpoints lie in `checkpoints/STEP/`, each with Orbax's items `model` (what
prediction needs), `training` (the rest of the state) and `metadata`, and our
`manifest.json`: a format number and the sha256 sum of every file.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import files
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 2
# What prediction needs of a state; the rest is for going on with the training.
MODEL = ("params", "batch_stats", "input", "best", "ema")
# Before formats had numbers, the whole state was one item.
OLD_FORMAT, OLD_ITEM = 1, "state"


def _sums(step_dir: epath.Path) -> dict[str, str]:
    """Relative path -> sha256 of every file of a checkpoint but the manifest."""
    sums, folders = {}, [step_dir]
    while folders:
        for path in folders.pop().iterdir():
            if path.is_dir():
                folders.append(path)
            elif path != step_dir / MANIFEST:
                sums[path.relative_to(step_dir).as_posix()] = files.sha256(path)
    return dict(sorted(sums.items()))


def seal(step_dir: epath.Path) -> None:
    """Writes the manifest of a checkpoint whose files are all there."""
    manifest = {"format": FORMAT, "files": _sums(step_dir)}
    files.write_json(step_dir / MANIFEST, manifest)


def _manifest(step_dir: epath.Path) -> tuple[int, dict[str, str]]:
    content = files.read_json(step_dir / MANIFEST)
    old = "format" not in content
    return (OLD_FORMAT, content) if old else (content["format"], content["files"])


def fault(step_dir: epath.Path) -> str | None:
    """What is wrong with a checkpoint's files, None if nothing is.

    Orbax restores a flipped bit without a word, and takes an empty folder for the
    newest checkpoint; so a checkpoint counts only with a manifest that its files fit.
    """
    if not (step_dir / MANIFEST).exists():
        return "it was not finished"
    try:
        _, expected = _manifest(step_dir)
    except (ValueError, TypeError, KeyError):
        return f"its {MANIFEST} is damaged"
    found = _sums(step_dir)
    shared = expected.keys() & found.keys()
    differences = {
        "missing": expected.keys() - found.keys(),
        "changed": {name for name in shared if expected[name] != found[name]},
        "new": found.keys() - expected.keys(),
    }
    parts = [f"{k}: {', '.join(sorted(v))}" for k, v in differences.items() if v]
    return "; ".join(parts) or None


def format_of(step_dir: epath.Path) -> int:
    """The number of a whole checkpoint's format.

    Raises:
        InputError: if it is newer than this version of audiojax knows.
    """
    number, _ = _manifest(step_dir)
    if number > FORMAT:
        raise InputError(
            f"{step_dir} has format {number}, and this version of audiojax reads "
            f"formats up to {FORMAT}; install the version that wrote it"
        )
    return number


def step_dirs(directory: epath.Path) -> Iterator[epath.Path]:
    """The folders of a run's checkpoints, whole or not, the newest first."""
    found = directory.iterdir() if directory.exists() else ()
    named = [path for path in found if path.name.isdigit() and path.is_dir()]
    yield from sorted(named, key=lambda path: int(path.name), reverse=True)


def newest(directory: epath.Path) -> epath.Path:
    """The folder of the newest whole checkpoint; damaged ones are warned of.

    Raises:
        InputError: if there is none.
    """
    for path in step_dirs(directory):
        problem = fault(path)
        if problem is None:
            return path
        logger.warning(
            "checkpoint %s can't be used (%s); the one before it is taken",
            *(path, problem),
        )
    raise InputError(
        f"{directory} holds no whole checkpoint; train first, without --mode"
    )


def read_model(step_dir: epath.Path) -> dict[str, Any]:
    """The item `model` of a whole checkpoint, as NumPy arrays.

    Returns:
        `params`, `batch_stats` and `input`; as `best` the same after the best epoch,
        None where no epoch was picked; and as `ema` averages of the first two, None
        where none were kept.
    """
    # It takes seconds, and most who open a workdir read no checkpoint.
    import orbax.checkpoint as ocp

    old = format_of(step_dir) == OLD_FORMAT
    # Orbax takes absolute paths only.
    path = step_dir.resolve() / (OLD_ITEM if old else "model")
    handler = ocp.PyTreeCheckpointHandler()
    saved = handler.metadata(path)
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    arguments = jax.tree.map(lambda _: as_numpy, getattr(saved, "tree", saved))
    tree = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments))
    tree = {"ema": None} | tree  # which not all have
    return {name: tree[name] for name in MODEL}


def read_metadata(step_dir: epath.Path) -> dict[str, Any]:
    """What was noted at the moment of the checkpoint."""
    return files.read_json(step_dir / "metadata" / "metadata")


def check_tree(step_dir: epath.Path, found: Any, expected: Any) -> None:
    """Compares names, shapes and types of two trees of arrays, or of their like.

    Raises:
        InputError: if they differ, so that the checkpoint is of another model.
    """

    def flat(tree: Any) -> dict[str, tuple[Any, ...]]:
        name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {name(path): (tuple(x.shape), str(x.dtype)) for path, x in leaves}

    there, wanted = flat(found), flat(expected)
    names = sorted(there.keys() | wanted.keys())
    differ = [name for name in names if there.get(name) != wanted.get(name)]
    if differ:
        raise InputError(
            f"{step_dir} holds another model: {len(differ)} arrays differ, first "
            f"{differ[0]} (found {there.get(differ[0])}, expected "
            f"{wanted.get(differ[0])}); use the config it was saved with"
        )
