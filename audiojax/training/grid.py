"""A sweep for every combination of some fields' values, and one table over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from audiojax import command, files
from audiojax import config as configs
from audiojax.config import Config
from audiojax.datasets import Recordings
from audiojax.training import hosts, results, sweep
from audiojax.workdir import RESULTS

Fields = Mapping[str, Sequence[Any]]


def _workdirs(workdir: epath.PathLike, fields: Fields) -> dict[str, configs.Point]:
    """The points by their workdirs, which lie in the one given."""
    return {
        str(epath.Path(workdir) / configs.point_name(point)): point
        for point in configs.points(fields)
    }


def train(config: Config, workdir: epath.PathLike, fields: Fields) -> dict[str, Any]:
    """Trains the sweep of every point of the fields' values.

    Each is in a folder of its own in the workdir, which is a workdir like any other.

    Returns:
        What `sweep.json` holds: each point's `values`, `workdir` and `summary`.

    Raises:
        InputError: for a field that the config has not, and as `sweep.train`; as
            `sweep.check` of any point before the first is trained.
    """
    points = _workdirs(workdir, fields).items()
    at = {folder: configs.at(config, point) for folder, point in points}
    check_all(at)
    train_all(at, lambda: _write(workdir, fields))
    return _write(workdir, fields)


def check_all(at: Mapping[str, Config], *, named: bool = True) -> None:
    """Checks all that the configs and their workdirs alone tell; see `sweep.check`.

    Raises:
        InputError: as that, of any of them.
    """
    for folder, config in at.items():
        sweep.check(config, folder, named=named)


def train_all(
    at: Mapping[str, Config],
    trained: Callable[[], object],
    recordings: Recordings | None = None,
) -> None:
    """Trains the sweep of every config that is not done yet.

    Args:
        at: the configs by their workdirs.
        trained: called after each of them.
        recordings: as in `sweep.train`, of all of them.

    Raises:
        InputError: as `sweep.train`.
    """
    # Runs that other processes hold are waited for when nothing else is left to do.
    for wait in (False, True):
        for folder, config in at.items():
            if not sweep.is_done(config, folder):
                sweep.train(config, folder, recordings=recordings, wait=wait)
                # The next one has other programs; see `program.MOST_PROGRAMS`.
                jax.clear_caches()
                trained()


def _write(workdir: epath.PathLike, fields: Fields) -> dict[str, Any]:
    collected = collect(workdir, fields)
    if hosts.everyone().first:
        files.write_json(epath.Path(workdir) / "sweep.json", collected)
    return collected


def evaluate(config: Config, workdir: epath.PathLike, fields: Fields) -> dict[str, Any]:
    """Scores every point's checkpoints again; see `sweep.evaluate`.

    Raises:
        InputError: also if a score is not what `results.json` says.
    """
    for folder, point in _workdirs(workdir, fields).items():
        found = sweep.evaluate(configs.at(config, point), folder)
        results.check_same(found, folder)
    return collect(workdir, fields)


def collect(workdir: epath.PathLike, fields: Fields) -> dict[str, Any]:
    """The points that have results, with their summaries."""
    found = []
    for folder, point in _workdirs(workdir, fields).items():
        path = epath.Path(folder) / RESULTS
        if path.exists():
            advice = "type the training command again, which writes it anew"
            summary = files.read_sealed(path, advice)["summary"]
            found.append({"values": point, "workdir": folder, "summary": summary})
    return {"fields": {name: list(fields[name]) for name in fields}, "points": found}


def table(collected: Mapping[str, Any]) -> str:
    """Points and their mean accuracies as lines of text."""
    names = list(collected["fields"])
    rows = [[*names, "single", "ensemble"]]
    for point in collected["points"]:
        cells = [str(point["values"][name]) for name in names]
        for kind in ("single", "ensemble"):
            if (spread := point["summary"].get(kind)) is None:
                cells.append("no run yet")
            else:
                cells.append(f"{spread['mean']:.2%} ± {spread['std']:.2%}")
        rows.append(cells)
    return command.columns(rows)
