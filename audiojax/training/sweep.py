"""Folds x seeds: every run of a config, shared between processes and devices."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import augment, catalog, checkpoint, datasets, files, locks
from audiojax import classifier as classifiers
from audiojax import task as tasks
from audiojax import workdir as workdirs
from audiojax.augment import Augment
from audiojax.config import Config
from audiojax.datasets import balance, checks, parts
from audiojax.errors import InputError, check_choice
from audiojax.task import Task
from audiojax.training import feed, hosts, program, results, trainer
from audiojax.training.loop import Diverged
from audiojax.training.results import Results
from audiojax.training.trainer import Trainer
from audiojax.workdir import Entry, Run

logger = logging.getLogger(__name__)

# How often to look whether the runs of other processes are done.
SECONDS_BETWEEN_LOOKS = 2.0


def planned_runs(config: Config) -> list[Run]:
    """Every (fold, seed) of the config, seeds of a fold together.

    Raises:
        InputError: if there is none, or one is named twice.
    """
    pairs = itertools.product(config.sweep.folds, config.sweep.seeds)
    runs = list(itertools.starmap(Run, pairs))
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
    names = {field.name for field in dataclasses.fields(datasets.Settings)}
    asked = {name: value for name, value in config.data.items() if name in names}
    return datasets.Settings(sample_rate=config.features.sample_rate, **asked)


def check(config: Config, workdir: epath.PathLike, *, named: bool = True) -> None:
    """Checks all that config and workdir alone tell, before data are touched.

    `named` says whether the data are those that `config.data` names.

    Raises:
        InputError: for the first value that can't be used, weights that can't be had,
            or a workdir of another config.
    """
    feed.check_stage(config.data.stage)
    trainer.loop_settings(config)
    balance.check(config.data.balance)
    parts.check_validation(config.sweep.validation)
    augment.check_stage(Augment(**config.augment), config.data.stage)
    classifier = classifiers.create(config, ("one", "other"), tasks.of(False))
    trainer.create_optimizer(config, classifier.network)
    # What the front end can't make of a clip shows only where it is traced.
    clip = (1, classifier.clip_policy.num_samples)
    jax.eval_shape(classifier.image, jax.ShapeDtypeStruct(clip, np.float32))
    data_settings(config)
    if named:
        check_choice("config.data.name", config.data.name, datasets.DATASETS)
    workdir = epath.Path(workdir)
    results.check_config(config, workdir)
    left = _left(config, workdir)
    _lay_out(config, len(left))
    # A run that goes on from a checkpoint needs no weights.
    folders = [workdir / run.name / workdirs.CHECKPOINTS for run in left]
    begun = hosts.everyone().broadcast(
        lambda: all(any(checkpoint.step_dirs(folder)) for folder in folders)
    )
    if classifier.weights is not None and not begun:
        path, _ = catalog.locate(classifier.weights)
        if not path.exists():
            raise InputError(
                f"config.model.pretrained is {str(path)!r}, and there is no such file; "
                "give imagenet, the path of a .safetensors file, or None"
            )


def _left(config: Config, workdir: epath.Path) -> list[Run]:
    """The runs of the config that are not finished."""
    runs = planned_runs(config)
    numbers = hosts.everyone().broadcast(
        lambda: [i for i, run in enumerate(runs) if not _done(workdir, run)]
    )
    return [runs[i] for i in numbers]


def _done(workdir: epath.Path, run: Run) -> bool:
    return results.finished(workdir / run.name) is not None


def _lay_out(config: Config, num_runs: int) -> str:
    """How so many runs are trained.

    Raises:
        InputError: as `trainer.choose_parallel` and `program.check_shares`.
    """
    parallel = trainer.choose_parallel(config, num_runs)
    count = hosts.everyone().count
    program.check_shares(config.batch_size, config.accumulate, count)
    return parallel


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
    takes runs that no other one holds. A workdir that is given again goes on.

    Recordings, such as `datasets.from_arrays` gives, stand for what `config.data`
    names. `wait` says whether to wait for the runs that other processes hold, and to
    take over those whose process ends.

    Returns:
        What `results.json` holds, which is renewed after every run.

    Raises:
        InputError: for anything in config, data or workdir that can't be used, and at
            the end if runs diverged.
        errors.Interrupted: after a signal, with everything saved.
    """
    workdir = epath.Path(workdir).resolve()
    check(config, workdir, named=recordings is None)
    job = hosts.everyone()
    with _writable(workdir) if job.first else contextlib.nullcontext():
        recordings = load(config) if recordings is None else recordings
    table = Results(config, recordings.info, workdir)
    if job.first:
        results.check_data(recordings.fingerprint, workdir)
        results.write_described(config, recordings, workdir, anew=True)
        files.write_sealed(workdir / workdirs.DATA, recordings.fingerprint.to_json())
        table.write()
    if diverged := _train_left(config, recordings, table, wait):
        raise InputError("; ".join(diverged))
    return table.write() if job.first else {}


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


def _train_left(
    config: Config, recordings: datasets.Recordings, table: Results, wait: bool
) -> list[str]:
    """Trains the runs that are left, as many at once as fit.

    Returns:
        Why runs were given up.
    """
    workdir, diverged = table.workdir, []
    left = _left(config, workdir)
    if not left:
        return diverged
    parallel, job = _lay_out(config, len(left)), hosts.everyone()
    data = trainer.open_data(config, recordings)
    built = Trainer(config, data, parallel, job)
    for run in left:  # what can't be split is refused before the first run trains
        built.feed.split(run.fold)
    while True:
        with contextlib.ExitStack() as held:
            decide = functools.partial(_take, built, workdir, left, held)
            taken, busy = job.broadcast(decide)
            chosen = [left[i] for i in taken]
            if job.first:
                for run in chosen:
                    results.write_described(config, recordings, workdir / run.name)
            ends = built.train(chosen, workdir) if chosen else []
            for end in ends:
                if isinstance(end, Diverged):
                    diverged.append(end.message)
                    if job.first:
                        logger.error("%s", end.message)
                elif job.first:
                    path = workdir / end.run.name / workdirs.RESULT
                    files.write_sealed(path, end.to_json())
                    _log_score(end, recordings.info.task)
            if job.first and chosen:
                table.write()
        left = [run for run in left if run not in chosen]
        if not chosen:
            if not (busy and wait):
                return diverged
            who = [f"{name} is held by {locks.holder(workdir / name)}" for name in busy]
            _log_once("waiting: " + "; ".join(who))
            time.sleep(SECONDS_BETWEEN_LOOKS)


def is_done(config: Config, workdir: epath.PathLike) -> bool:
    """Whether every run of the config is finished and in `results.json`."""
    workdir = epath.Path(workdir)
    written = hosts.everyone().broadcast(lambda: results.readable(workdir))
    return written and not _left(config, workdir)


def _take(
    built: Trainer,
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
    length = built.feed.steps_per_epoch
    for i, run in enumerate(runs):
        if len(taken) == built.most_runs:
            break
        # Only runs of as many steps go side by side.
        if taken and length(run.fold) != length(runs[taken[0]].fold):
            continue
        if _done(workdir, run):
            continue
        if not held.enter_context(locks.held(workdir / run.name)):
            busy.append(run.name)
        elif not _done(workdir, run):  # its last holder may have just finished
            taken.append(i)
    return taken, busy


@functools.lru_cache(maxsize=1)
def _log_once(text: str) -> None:
    logger.info("%s", text)


def _log_score(entry: Entry, task: Task) -> None:
    score = entry.final[task.metric]
    logger.info("%s: %s %.4f", entry.run.name, task.metric, score)


def evaluate(
    config: Config,
    workdir: epath.PathLike,
    *,
    recordings: datasets.Recordings | None = None,
) -> dict[str, Any]:
    """Scores every finished run of a workdir again, from its newest checkpoint.

    Nothing in it is changed. Config and recordings are as they were given to `train`.

    Returns:
        What `results.json` would hold, with the same time that the runs took.

    Raises:
        InputError: if there is nothing to score, or the workdir belongs to another
            config.
    """
    workdir = epath.Path(workdir).resolve()
    results.check_config(config, workdir)
    folders = [path.parent for path in workdir.glob(f"fold*-seed*/{workdirs.RESULT}")]
    found = sorted(map(Entry.read, folders), key=lambda entry: entry.run)
    if not found:
        raise InputError(
            f"{workdir} holds no finished run; train first, without --mode"
        )
    for entry in found:
        entry.check_files(workdir / entry.run.name)
    recordings = load(config) if recordings is None else recordings
    results.check_data(recordings.fingerprint, workdir)
    built = Trainer(config, trainer.open_data(config, recordings))
    entries, predictions = [], []
    for run in found:
        entry, predicted = built.evaluate(run, workdir)
        entries.append(entry)
        predictions.append(predicted)
        _log_score(entry, recordings.info.task)
    return results.summarize(config, recordings.info, entries, predictions)
