"""Folds x seeds: every run of a config, shared between processes and devices."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import classifier as classifiers
from audiojax import datasets, files, locks
from audiojax import task as tasks
from audiojax import workdir as workdirs
from audiojax.augment import Augment
from audiojax.config import Config
from audiojax.datasets import balance, checks
from audiojax.errors import InputError
from audiojax.task import Task
from audiojax.training import hosts, results
from audiojax.training.hosts import Hosts
from audiojax.training.runs import Diverged
from audiojax.training.trainer import (
    Trainer,
    check_stage,
    choose_parallel,
    create_optimizer,
    loop_settings,
    open_data,
)
from audiojax.workdir import Predictions, Run

logger = logging.getLogger(__name__)

# How often to look whether the runs of other processes are done.
SECONDS_BETWEEN_LOOKS = 2.0

End = dict[str, Any] | Diverged


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


def data_settings(config: Config) -> datasets.Settings:
    """What the config asks of its data set.

    Raises:
        InputError: as `datasets.Settings`.
    """
    return datasets.Settings(
        source_dir=config.data.source_dir,
        data_dir=config.data.data_dir,
        sample_rate=config.features.sample_rate,
        seed=config.data.seed,
        split=config.data.split,
        num_folds=config.data.num_folds,
        split_dir=config.data.split_dir,
        on_bad_file=config.data.on_bad_file,
        allow_leaks=config.data.allow_leaks,
    )


def check(config: Config) -> None:
    """Checks all that the config alone tells, before data are touched.

    Raises:
        InputError: for the first value that can't be used.
    """
    planned_runs(config)
    choose_parallel(config, 1)
    check_stage(config.data.stage)
    loop_settings(config)
    create_optimizer(config)
    balance.check(config.data.balance)
    Augment(**config.augment)
    classifier = classifiers.create(config, ("one", "other"), tasks.of(False))
    # What the front end can't make of a clip shows only where it is traced.
    clip = (1, classifier.clip_policy.num_samples)
    jax.eval_shape(classifier.image, jax.ShapeDtypeStruct(clip, np.float32))
    data_settings(config)


def load(config: Config) -> datasets.Recordings:
    """The recordings that the config names; their classes and counts are logged."""
    recordings = datasets.load(config.data.name, data_settings(config))
    logger.info(checks.summary(recordings.info, recordings.lengths))
    return recordings


def train(
    config: Config,
    workdir: epath.PathLike,
    *,
    recordings: datasets.Recordings | None = None,
    wait: bool = True,
) -> dict[str, Any]:
    """Trains every run of the config that is not done yet.

    Several processes, also on several machines, may be given the same workdir: each
    takes runs that no other one holds.

    Args:
        config: the whole config.
        workdir: where everything is written; the same one again goes on.
        recordings: instead of what `config.data` names, such as
            `datasets.from_arrays` gives.
        wait: whether to wait for the runs that other processes hold, and to take over
            those whose process ends.

    Returns:
        What `results.json` holds, which is renewed after every run.

    Raises:
        InputError: for anything in config, data or workdir that can't be used, and at
            the end if runs diverged.
        errors.Interrupted: after a signal, with everything saved.
    """
    workdir = epath.Path(workdir).resolve()
    check(config)
    runs = planned_runs(config)
    results.check_config(config, workdir)
    job, known = hosts.everyone(), {}
    with _writable(workdir) if job.first else contextlib.nullcontext():
        recordings = load(config) if recordings is None else recordings
    if job.first:
        files.write_json(workdir / workdirs.CONFIG, results.describe(config))
        results.write(config, recordings.info, workdir, known)
    diverged: list[Diverged] = []
    for ends in _ends(config, recordings, workdir, runs, known, wait):
        diverged += [end for end in ends if isinstance(end, Diverged)]
    if diverged:
        raise InputError("; ".join(end.message for end in diverged))
    if not job.first:
        return {}
    return results.write(config, recordings.info, workdir, known)


@contextlib.contextmanager
def _writable(workdir: epath.Path) -> Iterator[None]:
    """Makes the workdir and checks that it can be written, and locked where it is.

    If that or the block fails, the folders made here are removed again.

    Raises:
        InputError: if it can't.
    """
    lockable, probe = locks.possible(workdir), workdir / locks.NAME
    folders = (workdir, *workdir.parents) if lockable else ()
    missing = [Path(folder) for folder in folders if not folder.exists()]
    try:
        try:
            with locks.held(workdir):
                if not lockable:
                    files.write_bytes(probe, b"")
        except OSError as error:
            raise InputError(
                f"{workdir} can't be written ({error.strerror}); give another --workdir"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # others may have written there
                folder.rmdir()
        raise


def _ends(
    config: Config,
    recordings: datasets.Recordings,
    workdir: epath.Path,
    runs: Sequence[Run],
    known: dict[str, Predictions],
    wait: bool,
) -> Iterator[list[End]]:
    """Trains the runs, as many at once as fit; gives how each ended."""
    job = hosts.everyone()
    waiting = job.broadcast(
        lambda: [i for i, r in enumerate(runs) if not _done(workdir, r)]
    )
    left = [runs[i] for i in waiting]
    if not left:
        return
    parallel = choose_parallel(config, len(left))
    # Side by side, each process of a job trains runs of its own.
    team = Hosts() if parallel == "seed_parallel" else job
    if team != job and not locks.possible(workdir):
        left = left[job.index :: job.count]
    trainer = Trainer(config, open_data(config, recordings), parallel, team)
    for run in left:  # what can't be split is refused before the first run trains
        trainer.feed.split(run.fold)
    while True:
        with contextlib.ExitStack() as held:
            decide = functools.partial(_take, trainer, workdir, left, held)
            taken, busy = team.broadcast(decide)
            chosen = [left[i] for i in taken]
            ends = trainer.train(chosen, workdir) if chosen else []
            if team.first:
                _write_ends(config, recordings.info, workdir, chosen, ends, known)
        if chosen:
            left = [run for run in left if run not in chosen]
            yield ends
        elif busy and wait:
            _wait_for(workdir, busy)
        else:
            return


def is_done(config: Config, workdir: epath.PathLike) -> bool:
    """Whether every run of the config is finished and in `results.json`.

    Raises:
        InputError: if the workdir belongs to another config.
    """
    workdir = epath.Path(workdir)
    runs = planned_runs(config)
    results.check_config(config, workdir)
    return (workdir / workdirs.RESULTS).exists() and all(
        _done(workdir, run) for run in runs
    )


def _done(workdir: epath.Path, run: Run) -> bool:
    return (workdir / run.name / workdirs.RESULT).exists()


def _take(
    trainer: Trainer,
    workdir: epath.Path,
    runs: Sequence[Run],
    held: contextlib.ExitStack,
) -> tuple[list[int], list[str]]:
    """Locks runs that are not done, as many as train side by side.

    Returns:
        The numbers of those taken, and the names of those that others hold.
    """
    taken: list[int] = []
    busy: list[str] = []
    for i, run in enumerate(runs):
        if len(taken) == trainer.most_runs:
            break
        if _done(workdir, run):
            continue
        if taken and not _in_step(trainer, run, runs[taken[0]]):
            continue
        if not held.enter_context(locks.held(workdir / run.name)):
            busy.append(run.name)
        elif not _done(workdir, run):  # its last holder may have just finished
            taken.append(i)
    return taken, busy


def _in_step(trainer: Trainer, run: Run, other: Run) -> bool:
    steps_per_epoch = trainer.feed.steps_per_epoch
    return steps_per_epoch(run.fold) == steps_per_epoch(other.fold)


def _wait_for(workdir: epath.Path, busy: Sequence[str]) -> None:
    holders = [f"{name} is held by {locks.holder(workdir / name)}" for name in busy]
    _log_once("; ".join(holders))
    time.sleep(SECONDS_BETWEEN_LOOKS)


@functools.lru_cache(maxsize=1)
def _log_once(text: str) -> None:
    logger.info("waiting: %s", text)


def _write_ends(
    config: Config,
    info: datasets.Info,
    workdir: epath.Path,
    runs: Sequence[Run],
    ends: Sequence[End],
    known: dict[str, Predictions],
) -> None:
    """Writes `result.json` of the runs that came to their end, and `results.json`."""
    for run, end in zip(runs, ends, strict=True):
        if isinstance(end, Diverged):
            logger.error("%s", end.message)
            continue
        files.write_json(workdir / run.name / workdirs.RESULT, end)
        _log_score(run, end, info.task)
    if runs:
        results.write(config, info, workdir, known)


def _log_score(run: Run, entry: dict[str, Any], task: Task) -> None:
    score = entry["final"][task.metric]
    logger.info("%s: %s %.4f", run.name, task.metric, score)


def evaluate(
    config: Config,
    workdir: epath.PathLike,
    *,
    recordings: datasets.Recordings | None = None,
) -> dict[str, Any]:
    """Scores every finished run of a workdir again, from its newest checkpoint.

    Args:
        config: the config that the workdir was trained with.
        workdir: as `train` left it; nothing in it is changed.
        recordings: as they were given to `train`.

    Returns:
        What `results.json` would hold, with the same time that the runs took.

    Raises:
        InputError: if there is nothing to score, or the workdir belongs to another
            config.
    """
    workdir = epath.Path(workdir).resolve()
    if not (workdir / workdirs.CONFIG).exists():
        raise InputError(f"{workdir} holds no runs; train first, without --mode")
    results.check_config(config, workdir)
    entries = results.finished(workdir)
    if not entries:
        raise InputError(f"{workdir} holds no finished run; train first")
    recordings = load(config) if recordings is None else recordings
    trainer = Trainer(config, open_data(config, recordings))
    predictions = []
    for entry in entries:
        run = Run(entry["fold"], entry["seed"])
        scored, predicted = trainer.evaluate(run, workdir / run.name)
        entry |= scored
        predictions.append(predicted)
        _log_score(run, entry, recordings.info.task)
    return results.summarize(config, recordings.info, entries, predictions)


MODES: dict[str, Callable[..., dict[str, Any]]] = {
    "train": train,
    "evaluate": evaluate,
}
