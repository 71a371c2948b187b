"""What a workdir holds of a sweep: `config.json` and `results.json`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import files, task
from audiojax import workdir as workdirs
from audiojax.config import Config
from audiojax.datasets import Info
from audiojax.errors import InputError
from audiojax.workdir import Predictions

# What may change when a sweep goes on: more runs, and where and how they are made.
MAY_CHANGE = (
    "sweep.folds",
    "sweep.seeds",
    "data.source_dir",
    "data.data_dir",
    "data.split_dir",
    "parallel",
    "checkpoint_seconds",
    "tensorboard",
)
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as {"model.name": value}, tuples as lists as in JSON."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            fields |= flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = list(value) if isinstance(value, tuple) else value
    return fields


def plain(config: Config) -> dict[str, Any]:
    """The config as JSON gives it back."""
    return json.loads(json.dumps(config.to_dict()))


def _git_revision() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def check_config(config: Config, workdir: epath.Path) -> None:
    """Checks that no run of the workdir was begun with another config.

    Raises:
        InputError: if it belongs to another one; the fields that differ are listed.
    """
    path = workdir / workdirs.CONFIG
    # A config that no run was begun with binds nobody.
    if not path.exists() or not any(workdir.glob("fold*-seed*")):
        return
    ours, theirs = flat(plain(config)), flat(files.read_json(path)["config"])
    differ = [
        f"config.{name}: there {theirs.get(name)!r}, here {ours.get(name)!r}"
        for name in sorted(set(ours) | set(theirs))
        if ours.get(name) != theirs.get(name)
        and name not in MAY_CHANGE
        # What an older config has not was off, as it is by default.
        and (name in theirs or ours[name])
    ]
    if differ:
        raise InputError(
            f"{workdir} belongs to another config; give another --workdir, or the same "
            f"config. What differs: {'; '.join(differ)}"
        )


def describe(config: Config) -> dict[str, Any]:
    """The content of `config.json`: what is run, with what, and where."""
    device = jax.devices()[0]
    return {
        "config": plain(config),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
        "device": f"{jax.device_count()} x {device.device_kind}",
        "git_revision": _git_revision(),
    }


def summarize(
    config: Config,
    info: Info,
    runs: Sequence[dict[str, Any]],
    predictions: Sequence[Predictions],
) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        config: the whole config.
        info: the data set's.
        runs: an entry for each finished run.
        predictions: those of each run, in the same order.

    Returns:
        What was noticed in the data (`report`), such as files that were skipped, and
        `runs` as given. For each fold, of the accuracy (or the mAP, see `metric`) at
        the last epoch: mean
        (`single`) and standard deviation (`single_std`) over its seeds, that of their
        averaged logits (`ensemble`), and what averaging gains; with a validation
        split, `best` is the mean at each seed's best epoch. Mean and standard
        deviation of each over the folds.
    """
    folds = []
    for fold in sorted({run["fold"] for run in runs}):
        members = [
            (run, predicted)
            for run, predicted in zip(runs, predictions, strict=True)
            if run["fold"] == fold
        ]
        run, first = members[0]
        joined = [
            workdirs.aligned(predicted, other["name"], first, run["name"])
            for other, predicted in members
        ]
        scored = info.task.scores(task.average(joined), first.label)
        metric = info.task.metric
        ensemble = scored[metric]
        final = [run["final"][metric] for run, _ in members]
        best = [run["best"][metric] for run, _ in members if "best" in run]
        folds.append(
            {
                "fold": fold,
                "seeds": [run["seed"] for run, _ in members],
                "single": float(np.mean(final)),
                "single_std": float(np.std(final)),
                "ensemble": ensemble,
                "gain": ensemble - float(np.mean(final)),
            }
            | ({"best": float(np.mean(best))} if best else {})
        )
    return {
        "classes": list(info.classes),
        "report": dict(info.report),
        "config": plain(config),
        "task": info.task.name,
        "metric": info.task.metric,
        "runs": list(runs),
        "folds": folds,
        "summary": {
            kind: task.spread([fold[kind] for fold in folds])
            for kind in ("single", "ensemble", "gain", "best")
            if folds and kind in folds[0]
        },
    }


def finished(workdir: epath.Path) -> list[dict[str, Any]]:
    """The entries of all runs in the workdir that are done."""
    entries = map(files.read_json, _entry_files(workdir))
    return sorted(entries, key=lambda entry: (entry["fold"], entry["seed"]))


def _entry_files(workdir: epath.Path) -> list[epath.Path]:
    return list(workdir.glob(f"fold*-seed*/{workdirs.RESULT}"))


def write(
    config: Config, info: Info, workdir: epath.Path, known: dict[str, Predictions]
) -> dict[str, Any]:
    """Writes `results.json` of all runs that are done, and gives its content.

    Args:
        config: the whole config.
        info: the data set's.
        workdir: the sweep's.
        known: predictions of runs by their names; what is not in it is read and added,
            so that a sweep reads each run's once.
    """
    while True:
        entries = finished(workdir)
        for name in (entry["name"] for entry in entries):
            if name not in known:
                path = workdir / name / workdirs.TEST
                known[name] = workdirs.read_predictions(path, info.num_classes)
        predictions = [known[entry["name"]] for entry in entries]
        results = summarize(config, info, entries, predictions)
        files.write_json(workdir / workdirs.RESULTS, results)
        # Another process may have finished a run meanwhile, and have written first.
        if len(_entry_files(workdir)) == len(entries):
            return results


def check_same(results: Mapping[str, Any], workdir: epath.PathLike) -> None:
    """Compares scores with those of the workdir's `results.json`, to the last digit.

    Raises:
        InputError: if one differs.
    """
    there = files.read_json(epath.Path(workdir) / workdirs.RESULTS)
    for name in ("runs", "folds", "summary"):
        if there[name] != results[name]:
            raise InputError(
                f"{workdir}/results.json has other {name} than its checkpoints give: "
                f"there {there[name]}, here {results[name]}"
            )


def table(results: Mapping[str, Any]) -> str:
    """Folds and their mean as lines of text."""
    kinds = [
        kind for kind in ("single", "best", "ensemble") if kind in results["summary"]
    ]
    rows = [(str(fold["fold"]), fold) for fold in results["folds"]]
    for name in ("mean", "std"):
        values = {kind: results["summary"][kind][name] for kind in kinds}
        rows.append((name, values))
    lines = [f"{'fold':>6}" + "".join(f"  {kind:>8}" for kind in kinds)]
    for name, values in rows:
        cells = "".join(f"  {values[kind]:>8.2%}" for kind in kinds)
        lines.append(f"{name:>6}{cells}")
    if any(len(fold["seeds"]) > 1 for fold in results["folds"]):
        gain = results["summary"]["gain"]["mean"]
        lines.append(f"averaging the logits of a fold's seeds gains {gain:+.2%}")
    lines.append(f"{results['metric']} on the test folds, last epoch")
    return "\n".join(lines)
