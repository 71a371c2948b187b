"""What a workdir holds of a sweep: `config.json` and `results.json`."""

from __future__ import annotations

import dataclasses
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
from flax import traverse_util

from audiojax import command, files, scores, task
from audiojax import workdir as workdirs
from audiojax.config import Config
from audiojax.datasets import Info
from audiojax.errors import InputError
from audiojax.workdir import Entry, Predictions, Run

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
_ENTRIES = f"fold*-seed*/{workdirs.RESULT}"
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def plain(config: Config) -> dict[str, Any]:
    """The config as JSON gives it back."""
    return json.loads(json.dumps(config.to_dict()))


def _git_revision() -> str | None:
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.check_output(asked, stderr=subprocess.DEVNULL).decode()[:-1]
    except (OSError, subprocess.CalledProcessError):
        return None


def check_config(config: Config, workdir: epath.Path) -> None:
    """Checks that no run of the workdir was begun with another config.

    Raises:
        InputError: if it belongs to another one; the fields that differ are listed.
    """
    path = workdir / workdirs.CONFIG
    # A config that no run was begun with binds nobody.
    if not path.exists() or not any(workdir.glob("fold*-seed*")):
        return
    ours, theirs = (
        traverse_util.flatten_dict(fields, sep=".")
        for fields in (plain(config), files.read_json(path)["config"])
    )
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
    entries: Sequence[Entry],
    predictions: Sequence[Predictions],
) -> dict[str, Any]:
    """The content of `results.json`, of finished runs and the predictions of each.

    Returns:
        What was noticed in the data (`report`), such as files that were skipped, and
        the entries as `runs`. For each fold, of the accuracy (or the mAP, see `metric`)
        at the last epoch: mean (`single`) and standard deviation (`single_std`) over
        its seeds, that of their averaged logits (`ensemble`), and what averaging gains;
        with a validation split, `best` is the mean at each seed's best epoch. Mean and
        standard deviation of each over the folds.
    """
    metric, folds = info.task.metric, []
    pairs = list(zip(entries, predictions, strict=True))
    for fold in sorted({entry.run.fold for entry in entries}):
        members = [(entry, found) for entry, found in pairs if entry.run.fold == fold]
        one, first = members[0]
        joined = [
            workdirs.aligned(found, entry.run.name, first, one.run.name)
            for entry, found in members
        ]
        final = [entry.final[metric] for entry, _ in members]
        best = [entry.best[metric] for entry, _ in members if entry.best]
        found = scores.of_average(final, task.average(joined), first.label, info.task)
        row = {
            "fold": fold,
            "seeds": [entry.run.seed for entry, _ in members],
            "single": found["single"],
            "single_std": float(np.std(final)),
            "ensemble": found["ensemble"],
            "gain": found["gain"],
        }
        folds.append(row | ({"best": float(np.mean(best))} if best else {}))
    return {
        "classes": list(info.classes),
        "report": dict(info.report),
        "config": plain(config),
        "task": info.task.name,
        "metric": metric,
        "runs": [entry.to_json() for entry in entries],
        "folds": folds,
        "summary": scores.over_folds(folds, ("single", "ensemble", "gain", "best")),
    }


def finished(workdir: epath.Path) -> list[Entry]:
    """The entries of all runs in the workdir that are done, by fold and seed."""
    entries = map(Entry.from_json, map(files.read_json, workdir.glob(_ENTRIES)))
    return sorted(entries, key=lambda entry: entry.run)


@dataclasses.dataclass(frozen=True)
class Results:
    """`results.json` of a sweep's workdir, which is renewed after every run."""

    config: Config
    info: Info
    workdir: epath.Path
    # A sweep reads each run's once.
    _known: dict[Run, Predictions] = dataclasses.field(default_factory=dict)

    def write(self) -> dict[str, Any]:
        """Writes it of all runs that are done, and gives its content."""
        while True:
            entries = finished(self.workdir)
            for run in (entry.run for entry in entries):
                if run not in self._known:
                    path = self.workdir / run.name / workdirs.TEST
                    found = workdirs.read_predictions(path, self.info.num_classes)
                    self._known[run] = found
            predictions = [self._known[entry.run] for entry in entries]
            results = summarize(self.config, self.info, entries, predictions)
            files.write_json(self.workdir / workdirs.RESULTS, results)
            # Another process may have finished a run meanwhile, and written first.
            if len(list(self.workdir.glob(_ENTRIES))) == len(entries):
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
    folds, summary = results["folds"], results["summary"]
    kinds = [kind for kind in ("single", "best", "ensemble") if kind in summary]
    rows = {str(fold["fold"]): fold for fold in folds}
    for name in ("mean", "std"):
        rows[name] = {kind: summary[kind][name] for kind in kinds}
    cells = [[name, *(f"{row[k]:.2%}" for k in kinds)] for name, row in rows.items()]
    lines = [command.columns([["fold", *kinds], *cells])]
    if any(len(fold["seeds"]) > 1 for fold in folds):
        gain = summary["gain"]["mean"]
        lines.append(f"averaging the logits of a fold's seeds gains {gain:+.2%}")
    return "\n".join([*lines, f"{results['metric']} on the test folds, last epoch"])
