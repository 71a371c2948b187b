"""What a workdir holds of a sweep: `config.json` and `results.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import logging
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
from audiojax.config import Config, completed
from audiojax.datasets import Info, Recordings
from audiojax.errors import InputError
from audiojax.fingerprint import Fingerprint
from audiojax.workdir import Entry, Predictions, Run

logger = logging.getLogger(__name__)

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
# What results.json sums up over the folds.
KINDS = ("single", "raw", "best", "ensemble", "gain")
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


def _described(workdir: epath.Path) -> dict[epath.Path, dict[str, Any]]:
    """What each `config.json` says of the runs that were begun.

    That of the workdir stands for runs that have none of their own, or a damaged one.

    Raises:
        InputError: if nothing tells what a run was trained with.
    """
    found: dict[epath.Path, dict[str, Any]] = {}
    begun = sorted(workdir.glob("fold*-seed*"))
    # A config that no run was begun with binds nobody.
    for folder in begun and [workdir, *begun]:
        path = folder / workdirs.CONFIG
        try:
            found[path] = files.read_sealed(path, "training writes it anew")
        except files.ABSENT:
            pass
        except files.DamagedError as error:
            warn_once(str(error))
    if workdir / workdirs.CONFIG not in found:
        for folder in begun:
            if folder / workdirs.CONFIG not in found:
                raise InputError(
                    f"{folder}: nothing tells what it was trained with, for its "
                    f"{workdirs.CONFIG} and that of {workdir} are missing or damaged; "
                    "delete that folder, and it is trained again"
                )
    return found


def check_config(config: Config, workdir: epath.Path) -> None:
    """Checks that no run of the workdir was begun with another config.

    Raises:
        InputError: if one was; the fields that differ are listed.
    """
    ours = traverse_util.flatten_dict(plain(config), sep=".")
    for path, described in _described(workdir).items():
        theirs = completed(described.get("config", {}))
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
                f"{path.parent} belongs to another config; give another --workdir, or "
                f"the same config. What differs: {'; '.join(differ)}"
            )


def check_data(data: Fingerprint, workdir: epath.Path) -> None:
    """Checks that no run of the workdir was begun with other data.

    Raises:
        InputError: if one was, and how they differ.
    """
    ours = data.sha256
    for path, described in _described(workdir).items():
        if (theirs := described.get("data")) in (None, ours):
            continue
        what = "how they differ is not known, for data.json is missing or damaged"
        with contextlib.suppress(files.DamagedError, *files.ABSENT):
            there = workdirs.read_data(workdir / workdirs.DATA)
            if there.sha256 == theirs:
                what = data.differs(there)
        raise InputError(
            f"{path.parent} was trained on other data than these: {what}; give the "
            "data it was trained on, or another --workdir"
        )


def write_described(
    config: Config, recordings: Recordings, folder: epath.Path, *, anew: bool = False
) -> None:
    """Writes a `config.json`: what is run, with what, on what, and where.

    One that is there and whole stays, unless it is to be written anew.
    """
    path = folder / workdirs.CONFIG
    with contextlib.suppress(files.DamagedError, *files.ABSENT):
        if not anew and files.read_sealed(path, ""):
            return
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    described = {
        "config": plain(config),
        "data": recordings.fingerprint.sha256,
        "classes": list(recordings.info.classes),
        "versions": versions | {"python": platform.python_version()},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "git_revision": _git_revision(),
    }
    files.write_sealed(path, described)


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
        where parameters are averaged, `raw` is the mean without; with a validation
        split, `best` is the mean at each seed's best epoch. Mean and standard deviation
        of each over the folds.
    """
    metric, folds = info.task.metric, []
    # Scores come from predictions, whatever the entries say.
    entries = [
        dataclasses.replace(entry, final=info.task.scores(found.logits, found.label))
        for entry, found in zip(entries, predictions, strict=True)
    ]
    pairs = list(zip(entries, predictions, strict=True))
    for fold in sorted({entry.run.fold for entry in entries}):
        members = [(entry, found) for entry, found in pairs if entry.run.fold == fold]
        one, first = members[0]
        joined = [
            workdirs.aligned(found, entry.run.name, first, one.run.name)
            for entry, found in members
        ]
        final = [entry.final[metric] for entry, _ in members]
        raw = [entry.raw[metric] for entry, _ in members if entry.raw]
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
        beside = {"raw": raw, "best": best}.items()
        folds.append(row | {name: float(np.mean(x)) for name, x in beside if x})
    return {
        "classes": list(info.classes),
        "report": dict(info.report),
        "config": plain(config),
        "task": info.task.name,
        "metric": metric,
        "runs": [entry.to_json() for entry in entries],
        "folds": folds,
        "summary": scores.over_folds(folds, KINDS),
    }


def finished(folder: epath.Path) -> Entry | None:
    """The entry of a run that is done, all of its files as they were written.

    For one with damaged files it is None, as for one that is not done: what is damaged
    is told, and made anew from the checkpoint by who goes on with the run.
    """
    try:
        entry = Entry.read(folder, "it is made anew")
        entry.check_files(folder, "it is made anew")
    except files.ABSENT:
        return None
    except files.DamagedError as error:
        warn_once(str(error))
        return None
    return entry


def all_finished(workdir: epath.Path) -> list[Entry]:
    """The entries of all runs in the workdir that are done, by fold and seed."""
    found = filter(None, map(finished, workdir.glob("fold*-seed*")))
    return sorted(found, key=lambda entry: entry.run)


@functools.cache
def warn_once(text: str) -> None:
    """Tells of something that is looked at again and again."""
    logger.warning("%s", text)


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
            entries = all_finished(self.workdir)
            for run in (entry.run for entry in entries):
                if run not in self._known:
                    path = self.workdir / run.name / workdirs.TEST
                    found = workdirs.read_predictions(path, self.info.num_classes)
                    self._known[run] = found
            predictions = [self._known[entry.run] for entry in entries]
            results = summarize(self.config, self.info, entries, predictions)
            files.write_sealed(self.workdir / workdirs.RESULTS, results)
            # Another process may have finished a run meanwhile, and written first.
            if len(all_finished(self.workdir)) == len(entries):
                return results


def readable(workdir: epath.Path) -> bool:
    """Whether `results.json` is there and whole."""
    with contextlib.suppress(files.DamagedError, *files.ABSENT):
        return bool(files.read_sealed(workdir / workdirs.RESULTS, ""))
    return False


def check_same(results: Mapping[str, Any], workdir: epath.PathLike) -> None:
    """Compares scores with those of the workdir's `results.json`, to the last digit.

    Raises:
        InputError: if one differs.
    """
    path = epath.Path(workdir) / workdirs.RESULTS
    there = files.read_sealed(path, "train again without --mode, which writes it anew")
    for name in ("runs", "folds", "summary"):
        if there[name] != results[name]:
            raise InputError(
                f"{workdir}/results.json has other {name} than its checkpoints give: "
                f"there {there[name]}, here {results[name]}"
            )


def table(results: Mapping[str, Any]) -> str:
    """Folds and their mean as lines of text."""
    folds, summary = results["folds"], results["summary"]
    shown = ("single", "raw", "best", "ensemble")
    kinds = [kind for kind in shown if kind in summary]
    rows = {str(fold["fold"]): fold for fold in folds}
    for name in ("mean", "std"):
        rows[name] = {kind: summary[kind][name] for kind in kinds}
    cells = [[name, *(f"{row[k]:.2%}" for k in kinds)] for name, row in rows.items()]
    lines = [command.columns([["fold", *kinds], *cells])]
    if any(len(fold["seeds"]) > 1 for fold in folds):
        gain = summary["gain"]["mean"]
        lines.append(f"averaging the logits of a fold's seeds gains {gain:+.2%}")
    return "\n".join([*lines, f"{results['metric']} on the test folds, last epoch"])
