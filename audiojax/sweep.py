"""Folds x seeds: every run of a config in turn, results, ensembles."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import logging
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import datasets, evaluate, files
from audiojax.config import Config
from audiojax.datasets import Info, checks
from audiojax.errors import InputError
from audiojax.train import Run, Trainer, open_data

logger = logging.getLogger(__name__)

# What may change when a sweep goes on: more runs, and where data and progress lie.
MAY_CHANGE = (
    "sweep.folds",
    "sweep.seeds",
    "data.source_dir",
    "data.data_dir",
    "data.split_dir",
    "checkpoint_seconds",
    "tensorboard",
)
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

Predictions = Mapping[str, np.ndarray]


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


def check_workdir(config: Config, workdir: epath.Path) -> None:
    """Checks that the workdir is new or belongs to this config.

    Raises:
        InputError: if it belongs to another one; the fields that differ are listed.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    ours, theirs = flat(plain(config)), flat(files.read_json(path)["config"])
    differ = [
        f"config.{name}: there {theirs.get(name)!r}, here {ours.get(name)!r}"
        for name in sorted(set(ours) | set(theirs))
        if ours.get(name) != theirs.get(name) and name not in MAY_CHANGE
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


def planned_runs(config: Config) -> list[Run]:
    """Every (fold, seed) of the config, seeds of a fold together.

    Raises:
        InputError: if there is none, or one is named twice.
    """
    runs = [
        Run(*pair) for pair in itertools.product(config.sweep.folds, config.sweep.seeds)
    ]
    if not runs or len(set(runs)) < len(runs):
        raise InputError(
            f"config.sweep.folds is {config.sweep.folds} and config.sweep.seeds is "
            f"{config.sweep.seeds}; give each at least one number, none twice"
        )
    return runs


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over the folds."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def summarise(
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
        What was noticed in the data, such as files that were skipped; `runs` as given;
        for each fold the mean accuracy of its seeds and the accuracy of their averaged
        logits; mean and standard deviation of both over the folds.
    """
    folds = []
    for fold in sorted({run["fold"] for run in runs}):
        members = [
            (run, predicted)
            for run, predicted in zip(runs, predictions, strict=True)
            if run["fold"] == fold
        ]
        logits = evaluate.average([predicted["logits"] for _, predicted in members])
        label = members[0][1]["label"]
        folds.append(
            {
                "fold": fold,
                "seeds": [run["seed"] for run, _ in members],
                "single": float(np.mean([r["final"]["accuracy"] for r, _ in members])),
                "ensemble": evaluate.scores(logits, label)["accuracy"],
            }
        )
    return {
        "classes": list(info.classes),
        "report": dict(info.report),
        "config": plain(config),
        "runs": list(runs),
        "folds": folds,
        "summary": {
            kind: _spread([fold[kind] for fold in folds])
            for kind in ("single", "ensemble")
            if folds
        },
    }


def _finished(
    workdir: epath.Path, runs: Sequence[Run]
) -> tuple[list[dict[str, Any]], list[Predictions]]:
    """Entries and predictions of those runs that are done."""
    folders = [workdir / run.name for run in runs]
    done = [folder for folder in folders if (folder / "result.json").exists()]
    return (
        [files.read_json(folder / "result.json") for folder in done],
        [files.read_arrays(folder / "predictions.npz") for folder in done],
    )


def load(config: Config) -> datasets.Recordings:
    """The recordings that the config names; their classes and counts are logged."""
    recordings = datasets.load(
        config.data.name,
        datasets.Settings(
            source_dir=config.data.source_dir,
            data_dir=config.data.data_dir,
            sample_rate=config.features.sample_rate,
            seed=config.data.seed,
            split=config.data.split,
            num_folds=config.data.num_folds,
            split_dir=config.data.split_dir,
            on_bad_file=config.data.on_bad_file,
            allow_leaks=config.data.allow_leaks,
        ),
    )
    logger.info(checks.summary(recordings.info, recordings.lengths))
    return recordings


def train(config: Config, workdir: epath.PathLike) -> dict[str, Any]:
    """Trains every run of the config that is not done yet.

    Args:
        config: the whole config.
        workdir: where everything is written; the same one again goes on.

    Returns:
        What `results.json` holds, which is renewed after every run.

    Raises:
        InputError: for anything in config, data or workdir that can't be used.
        train.Interrupted: after a signal, with everything saved.
    """
    workdir = epath.Path(workdir).resolve()
    runs = planned_runs(config)
    check_workdir(config, workdir)
    recordings = load(config)
    files.write_json(workdir / "config.json", describe(config))
    info = recordings.info
    results = summarise(config, info, *_finished(workdir, runs))
    waiting = [run for run in runs if not (workdir / run.name / "result.json").exists()]
    data = open_data(config, recordings) if waiting else None
    for run in waiting:
        assert data is not None
        entry = Trainer(config, data, run).train(workdir / run.name)
        files.write_json(workdir / run.name / "result.json", entry)
        results = summarise(config, info, *_finished(workdir, runs))
        files.write_json(workdir / "results.json", results)
        logger.info("%s: accuracy %.4f", run.name, entry["final"]["accuracy"])
    files.write_json(workdir / "results.json", results)
    return results


def evaluate_checkpoints(config: Config, workdir: epath.PathLike) -> dict[str, Any]:
    """Scores every finished run again, from its newest checkpoint.

    Args:
        config: the config that the workdir was trained with.
        workdir: as `train` left it; nothing in it is changed.

    Returns:
        What `results.json` would hold, but for the time that the runs took.

    Raises:
        InputError: if there is nothing to score, or the workdir belongs to another
            config.
    """
    workdir = epath.Path(workdir).resolve()
    if not (workdir / "config.json").exists():
        raise InputError(f"{workdir} holds no runs; train first, without --mode")
    check_workdir(config, workdir)
    entries, _ = _finished(workdir, planned_runs(config))
    if not entries:
        raise InputError(f"{workdir} holds no finished run; train first")
    recordings = load(config)
    data = open_data(config, recordings)
    predictions = []
    for entry in entries:
        run = Run(entry["fold"], entry["seed"])
        trainer = Trainer(config, data, run)
        predicted = trainer.predictions(trainer.restore(workdir / run.name))
        entry["final"] = evaluate.scores(predicted["logits"], predicted["label"])
        predictions.append(predicted)
        logger.info("%s: accuracy %.4f", run.name, entry["final"]["accuracy"])
    return summarise(config, recordings.info, entries, predictions)


def check_same(results: Mapping[str, Any], workdir: epath.PathLike) -> None:
    """Compares scores with those of the workdir's `results.json`, to the last digit.

    Raises:
        InputError: if one differs.
    """
    there = files.read_json(epath.Path(workdir) / "results.json")
    for name in ("runs", "folds", "summary"):
        if there[name] != results[name]:
            raise InputError(
                f"{workdir}/results.json has other {name} than its checkpoints give: "
                f"there {there[name]}, here {results[name]}"
            )


MODES: dict[str, Callable[[Config, epath.PathLike], dict[str, Any]]] = {
    "train": train,
    "evaluate": evaluate_checkpoints,
}


def table(results: Mapping[str, Any]) -> str:
    """Folds and their mean as lines of text."""
    lines = [f"{'fold':>6}  {'single':>7}  {'ensemble':>8}"]
    for fold in results["folds"]:
        lines.append(
            f"{fold['fold']:>6}  {fold['single']:>7.2%}  {fold['ensemble']:>8.2%}"
        )
    single, ensemble = results["summary"]["single"], results["summary"]["ensemble"]
    lines.append(f"{'mean':>6}  {single['mean']:>7.2%}  {ensemble['mean']:>8.2%}")
    lines.append(f"{'std':>6}  {single['std']:>7.2%}  {ensemble['std']:>8.2%}")
    return "\n".join(lines)
