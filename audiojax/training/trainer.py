"""Runs: build their parts, train them, checkpoint, resume, score."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from etils import epath

from audiojax import augment, checkpoint, features, files, models
from audiojax import classifier as classifiers
from audiojax.augment import Augment
from audiojax.classifier import Variables
from audiojax.config import Config
from audiojax.datasets import Recordings
from audiojax.datasets import balance as balances
from audiojax.errors import InputError, check_choice
from audiojax.training import feed, optimizer, program, steps
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.evaluate import Evaluator
from audiojax.training.feed import Data, Feed
from audiojax.training.hosts import Hosts, everyone
from audiojax.training.loop import ActiveRun, Diverged, Loop, LoopSettings, keys
from audiojax.training.program import DataParallel, Programs, SeedParallel, Spread
from audiojax.training.progress import Progress
from audiojax.training.signals import StopSignals
from audiojax.workdir import (
    CHECKPOINTS,
    CONFIG,
    METRICS,
    RESULT,
    TEST,
    VALIDATION,
    Entry,
    Predictions,
    Run,
)

logger = logging.getLogger(__name__)

# With fewer clips on each device, several runs side by side use the devices better
# than one run over all of them.
CLIPS_PER_DEVICE = 32
PARALLEL = ("auto", "data_parallel", "seed_parallel")


def create_optimizer(
    config: Config, network: models.Network
) -> optax.GradientTransformation:
    """The optimizer with a schedule of some length; its state has one form for all.

    Raises:
        InputError: as `optimizer.create`.
    """
    recipe = optimizer.Recipe(**config.optimizer)
    return optimizer.create(recipe, 100, config.epochs, network)


def loop_settings(config: Config) -> LoopSettings:
    """The config's fields that the loop reads.

    Raises:
        InputError: as `LoopSettings`.
    """
    names = [field.name for field in dataclasses.fields(LoopSettings)]
    return LoopSettings(**{name: config[name] for name in names})


def choose_parallel(config: Config, num_runs: int) -> str:
    """How so many runs are laid over devices: "data_parallel" or "seed_parallel".

    "auto" trains runs side by side where a device would get fewer than
    `CLIPS_PER_DEVICE` clips of a batch, and never in a job of several processes: there
    Orbax writes what is whole on one host only if that is the first.

    Raises:
        InputError: for an unknown choice, or one that such a job has not.
    """
    check_choice("config.parallel", config.parallel, PARALLEL)
    processes = everyone().count
    if processes > 1 and config.parallel == "seed_parallel":
        raise InputError(
            f"config.parallel is seed_parallel, in a job of {processes} processes; "
            "take data_parallel, or type the command on each host without --multihost "
            "and with the same --workdir: they share its runs"
        )
    if config.parallel != "auto":
        return config.parallel
    devices = jax.device_count()
    small = config.batch_size < CLIPS_PER_DEVICE * devices
    # On one device both are a run at a time, but rounding may differ, and the number of
    # runs that are left must not.
    side_by_side = processes == 1 and devices > 1 and num_runs > 1 and small
    return "seed_parallel" if side_by_side else "data_parallel"


def open_data(config: Config, recordings: Recordings) -> Data:
    """The data in the form that `config.data.stage` asks for.

    Raises:
        InputError: as `feed.open_data`.
    """
    info = recordings.info
    return feed.open_data(
        recordings,
        classifiers.create(config, info.classes, info.task),
        stage=config.data.stage,
        batch_size=config.batch_size,
        cache_dir=config.data.data_dir,
    )


class Trainer:
    """The parts that a config's runs share, and what is done with them."""

    def __init__(
        self,
        config: Config,
        data: Data,
        parallel: str = "data_parallel",
        hosts: Hosts | None = None,
    ):
        """Builds the classifier and the evaluation step; trains nothing yet.

        The data are as `open_data` gives them, and laid out as `choose_parallel` says;
        the processes `hosts` share each run, this one alone by default.

        Raises:
            InputError: for what can't be built.
        """
        self.config, self.data, self.parallel = config, data, parallel
        self.hosts = hosts or Hosts()
        self.classifier = classifiers.create(
            config,
            data.info.classes,
            data.info.task,
            axis_name=steps.AXIS if parallel == "data_parallel" else None,
        )
        balances.check(config.data.balance)
        frozen = classifiers.frozen_stages(config, self.classifier.network)
        stages = models.stage_paths(self.classifier.network)
        self._trainable = tuple(name for name in stages if name not in frozen)
        self.feed = Feed(
            data,
            self.classifier.clip_policy,
            self.hosts,
            batch_size=config.batch_size,
            validation=config.sweep.validation,
            balance=config.data.balance,
            allow_leaks=config.data.allow_leaks,
            clean_copy=config.augment.clean_copy,
        )
        self.evaluator = Evaluator(self.classifier, self.feed)
        self.programs = Programs(
            self.classifier,
            optimizer.Recipe(**config.optimizer),
            augment.changes(Augment(**config.augment)),
            self._trainable,
            config.epochs,
            config.accumulate,
            self._spread,
        )
        self.batch_image = jax.jit(self.classifier.batch_image)
        # By fold: what every seed of it shares.
        self._statistics: dict[int, Variables] = {}

    @property
    def most_runs(self) -> int:
        """How many runs can train side by side."""
        return 1 if self.parallel == "data_parallel" else jax.local_device_count()

    def _spread(self, num_runs: int) -> Spread:
        devices = jax.local_devices()
        if self.parallel == "seed_parallel":
            return SeedParallel(devices[:num_runs])
        if self.hosts.count > 1:
            return DataParallel(devices, everywhere=True)
        rows = self.config.batch_size // self.config.accumulate
        return DataParallel(program.batch_devices(rows, devices))

    def _create_state(self, variables: Variables) -> steps.TrainState:
        network = self.classifier.network
        trained, _ = models.split_params(network, variables["params"], self._trainable)
        return steps.create_state(
            variables,
            create_optimizer(self.config, network),
            trained=trained,
            pick_best=self.config.sweep.validation is not None,
            average=self.config.optimizer.ema_decay > 0,
        )

    def abstract_state(self) -> steps.TrainState:
        """Shapes and types of the state, without computing or reading anything."""
        random = dataclasses.replace(self.classifier, weights=None)
        return jax.eval_shape(
            lambda key: self._create_state(random.init(key)), jax.random.key(0)
        )

    def initial_state(self, run: Run) -> steps.TrainState:
        """The state before the first step."""
        variables = self.classifier.init(keys(run)[0])
        if self.config.model.standardize:
            if run.fold not in self._statistics:
                mean, std = features.image_statistics(
                    np.asarray(self.batch_image(batch))[batch["mask"] > 0]
                    for batch in self.feed.evaluation(self.feed.split(run.fold).train)
                )
                self._statistics[run.fold] = {"mean": mean, "std": std}
            variables["input"] = self._statistics[run.fold]
        return self._create_state(variables)

    def evaluate(self, entry: Entry, workdir: epath.Path) -> tuple[Entry, Predictions]:
        """Scores a finished run again, from its newest checkpoint.

        Returns:
            The entry with these scores, and the predictions of the test clips.

        Raises:
            InputError: if it has no whole checkpoint of its end, or one of another
                model.
        """
        folder = workdir / entry.run.name
        step_dir = checkpoint.newest(folder / CHECKPOINTS)
        if int(step_dir.name) != entry.steps:
            raise InputError(
                f"{folder}: its last whole checkpoint is of step {step_dir.name}, but "
                f"its scores are of step {entry.steps}; delete its {RESULT} and type "
                "the training command again, which goes on to the same bits"
            )
        model = checkpoint.read_model(step_dir)
        state = self.abstract_state()
        wanted = {name: getattr(state, name) for name in model}
        checkpoint.check_tree(step_dir, model, wanted)
        progress = Progress(**checkpoint.read_metadata(step_dir))
        test, state = self.feed.split(entry.run.fold).test, state.replace(**model)
        predictions = self.evaluator.predictions(state.model_variables, test)
        scores = self._final_scores(state, progress, test, predictions)
        return dataclasses.replace(entry, **scores), predictions

    def _final_scores(
        self,
        state: steps.TrainState,
        progress: Progress,
        test: np.ndarray,
        predictions: Predictions,
    ) -> dict[str, Any]:
        """An entry's `final`, `raw` if that is an average, `best` if one was picked."""
        scores = self.classifier.task.scores
        found = {"final": scores(predictions.logits, predictions.label)}
        if state.ema is not None:
            found["raw"] = self.evaluator.scores(state.variables, test)
        if progress.best is not None:
            found["best"] = self.evaluator.scores(state.best, test) | progress.best
        return found

    def train(self, runs: Sequence[Run], workdir: epath.Path) -> list[Entry | Diverged]:
        """Trains runs side by side to the end, from their newest checkpoints.

        They are at most `most_runs`, with the same number of steps in an epoch; each
        has a folder of its name in the workdir, whose path is absolute.

        Returns:
            Each run's entry, its `predictions.npz` being written, or why it was given
            up.

        Raises:
            InputError: for a checkpoint that does not fit or can't be written.
            Interrupted: after a signal, with all steps so far saved.
        """
        with StopSignals() as signals, contextlib.ExitStack() as opened:
            ready = [self._open(run, workdir / run.name, opened) for run in runs]
            # They go in step; a run whose last checkpoint is an older one than the
            # others' goes by itself.
            ready.sort(key=lambda active: active.step)
            ends: dict[Run, Entry | Diverged] = {}
            for _, together in itertools.groupby(ready, lambda active: active.step):
                ends |= self._fit(list(together), signals)
        return [ends[run] for run in runs]

    def _open(
        self, run: Run, folder: epath.Path, opened: contextlib.ExitStack
    ) -> ActiveRun:
        """The run as it stands: its newest checkpoint, or its beginning."""
        checkpoints = None
        if self.hosts.first:
            checkpoints = opened.enter_context(Checkpoints(folder / CHECKPOINTS))
        step = self.hosts.broadcast(lambda: checkpoints and checkpoints.latest_step())
        metadata: dict[str, Any] = {}
        if step is None:
            state = jax.device_get(self.initial_state(run))
        elif checkpoints is not None:
            state, metadata = checkpoints.restore(self.abstract_state())
            state = jax.device_get(state)
        else:
            like = self.abstract_state()
            state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        progress = Progress(**self.hosts.broadcast(lambda: metadata))
        state, split = self.hosts.copy(state), self.feed.split(run.fold)
        if step:
            logger.info("%s goes on at step %d", run.name, step)
        return ActiveRun(run, folder, split, state, progress, checkpoints)

    def _fit(
        self, runs: list[ActiveRun], signals: StopSignals
    ) -> dict[Run, Entry | Diverged]:
        """Trains runs of the same step to the end, and scores them."""
        steps_per_epoch = self.feed.steps_per_epoch(runs[0].run.fold)
        compiled = self.programs.get(len(runs), steps_per_epoch)
        settings = loop_settings(self.config)
        with Loop(compiled, runs, settings, self.evaluator, signals) as loop:
            loop.run()
        return {
            active.run: active.diverged
            or self._finish(active, compiled.spread.part(loop.state, i))
            for i, active in enumerate(runs)
        }

    def _finish(self, active: ActiveRun, state: steps.TrainState) -> Entry:
        """Writes the predictions of a run that is done, and gives its entry."""
        parts = {TEST: active.split.test, VALIDATION: active.split.validation}
        found = {
            name: self.evaluator.predictions(state.model_variables, clips)
            for name, clips in parts.items()
            if name == TEST or len(clips)
        }
        sums = None
        if self.hosts.first:
            for name, predictions in found.items():
                files.write_arrays(active.folder / name, vars(predictions))
            written = (*found, CONFIG, METRICS)
            paths = {name: active.folder / name for name in written}
            sums = {n: files.sha256(path) for n, path in paths.items() if path.exists()}
        return Entry(
            active.run,
            steps=int(state.step),
            skipped_steps=int(state.skipped),
            seconds=round(active.progress.seconds, 1),
            files=sums,
            **self._final_scores(state, active.progress, parts[TEST], found[TEST]),
        )
