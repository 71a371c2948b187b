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
from audiojax.classifier import Classifier, Variables
from audiojax.config import Config
from audiojax.datasets import Recordings
from audiojax.datasets import balance as balances
from audiojax.datasets.store import images
from audiojax.errors import InputError, check_choice
from audiojax.training import optimizer, program, steps
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.evaluate import Evaluator
from audiojax.training.feed import Data, Feed
from audiojax.training.hosts import Hosts
from audiojax.training.loop import Loop, LoopSettings
from audiojax.training.program import DataParallel, Programs, SeedParallel, Spread
from audiojax.training.progress import Progress
from audiojax.training.runs import ActiveRun, Diverged, keys
from audiojax.training.signals import StopSignals
from audiojax.workdir import CHECKPOINTS, TEST, VALIDATION, Predictions, Run

logger = logging.getLogger(__name__)

# With fewer clips on each device, several runs side by side use the devices better
# than one run over all of them.
CLIPS_PER_DEVICE = 32
PARALLEL = ("auto", "data_parallel", "seed_parallel")
STAGES = ("spectrogram", "audio")


def recipe(config: Config) -> optimizer.Recipe:
    """The config's optimizer as the optimizer module takes it."""
    return optimizer.Recipe(**config.optimizer)


def create_optimizer(config: Config) -> optax.GradientTransformation:
    """The optimizer with a schedule of some length; its state has one form for all.

    Raises:
        InputError: as `optimizer.create`.
    """
    return optimizer.create(recipe(config), 100, config.epochs)


def loop_settings(config: Config) -> LoopSettings:
    """The config's fields that the loop reads.

    Raises:
        InputError: as `LoopSettings`.
    """
    fields = (field.name for field in dataclasses.fields(LoopSettings))
    return LoopSettings(**{name: config[name] for name in fields})


def choose_parallel(config: Config, num_runs: int) -> str:
    """How training is laid over devices: "data_parallel" or "seed_parallel".

    Args:
        config: `parallel` and `batch_size` are read. "auto" trains runs side by side
            where a device would get fewer than `CLIPS_PER_DEVICE` clips of a batch.
        num_runs: that wait to be trained.

    Raises:
        InputError: for an unknown choice.
    """
    check_choice("config.parallel", config.parallel, PARALLEL)
    if config.parallel != "auto":
        return config.parallel
    small = config.batch_size < CLIPS_PER_DEVICE * jax.device_count()
    return "seed_parallel" if num_runs > 1 and small else "data_parallel"


def check_stage(stage: str) -> None:
    """Checks where images are made.

    Raises:
        InputError: if it is not one of `STAGES`.
    """
    if stage not in STAGES:
        raise InputError(
            f"config.data.stage is {stage!r}; choose spectrogram (each image is made "
            "once) or audio (images are made in the training step)"
        )


def open_data(config: Config, recordings: Recordings) -> Data:
    """The data in the form that `config.data.stage` asks for.

    Raises:
        InputError: for an unknown stage, or recordings at another rate.
    """
    check_stage(config.data.stage)
    rate = config.features.sample_rate
    if recordings.info.sample_rate != rate:
        raise InputError(
            f"{recordings.info.name} is at {recordings.info.sample_rate} Hz, but "
            f"config.features.sample_rate is {rate}; make them the same"
        )
    if config.data.stage == "audio":
        return Data(recordings, images=None)
    model = classifiers.create(config, recordings.info.classes, recordings.info.task)
    cached = images.image_cache(
        recordings,
        key=repr(model.log_mel),
        shape=model.image_shape,
        compute=jax.jit(model.batch_image),
        policy=model.clip_policy,
        batch_size=config.batch_size,
        cache_dir=config.data.data_dir,
    )
    return Data(recordings, cached)


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

        Args:
            config: the whole config.
            data: as `open_data` gives it.
            parallel: "data_parallel" or "seed_parallel".
            hosts: the processes that share each run; this one alone by default.

        Raises:
            InputError: for what can't be built.
        """
        self.config, self.data, self.parallel = config, data, parallel
        self.hosts = hosts or Hosts()
        axis_name = steps.AXIS if parallel == "data_parallel" else None
        self.classifier: Classifier = classifiers.create(
            config, data.info.classes, data.info.task, axis_name=axis_name
        )
        self._check_batch_size()
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
        )
        self.evaluator = Evaluator(
            self.classifier, data, self.feed, config.batch_size, self.hosts
        )
        self.programs = Programs(
            self.classifier,
            recipe(config),
            augment.changes(Augment(**config.augment)),
            self._trainable,
            epochs=config.epochs,
            spread=self._spread,
        )
        # By fold: what every seed of it shares.
        self._statistics: dict[int, Variables] = {}

    def _check_batch_size(self) -> None:
        count, size = self.hosts.count, self.config.batch_size
        if count > 1 and size % jax.device_count():
            raise InputError(
                f"config.batch_size is {size}, which {jax.device_count()} devices of "
                f"{count} processes can't share equally; give a multiple"
            )

    @property
    def most_runs(self) -> int:
        """How many runs can train side by side."""
        if self.parallel == "data_parallel":
            return 1
        return jax.local_device_count()

    def _spread(self, num_runs: int) -> Spread:
        if self.parallel == "seed_parallel":
            return SeedParallel(jax.local_devices()[:num_runs])
        if self.hosts.count > 1:
            return DataParallel(jax.local_devices(), everywhere=True)
        size = self.config.batch_size
        return DataParallel(program.batch_devices(size, jax.local_devices()))

    def _create_state(self, variables: Variables) -> steps.TrainState:
        updates = create_optimizer(self.config)
        pick_best = self.config.sweep.validation is not None
        network = self.classifier.network
        trained, _ = models.split_params(network, variables["params"], self._trainable)
        return steps.create_state(
            variables, updates, trained=trained, pick_best=pick_best
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
                self._statistics[run.fold] = self._image_statistics(run)
            variables["input"] = self._statistics[run.fold]
        return self._create_state(variables)

    def _image_statistics(self, run: Run) -> Variables:
        image = jax.jit(self.classifier.batch_image)
        mean, std = features.image_statistics(
            (np.asarray(image(batch))[batch["mask"] > 0])
            for batch in self.feed.evaluation(self.feed.split(run.fold).train)
        )
        return {"mean": mean, "std": std}

    def evaluate(
        self, run: Run, folder: epath.Path
    ) -> tuple[dict[str, Any], Predictions]:
        """Scores a finished run again, from its newest checkpoint.

        Returns:
            The entry's `final`, and `best` if there is one, and the predictions.

        Raises:
            InputError: if it has no whole checkpoint, or one of another model.
        """
        step_dir = checkpoint.newest(folder / CHECKPOINTS)
        model = checkpoint.read_model(step_dir)
        state = self.abstract_state()
        wanted = {name: getattr(state, name) for name in model}
        checkpoint.check_tree(step_dir, model, wanted)
        progress = Progress(**checkpoint.read_metadata(step_dir))
        test, state = self.feed.split(run.fold).test, state.replace(**model)
        predictions = self.evaluator.predictions(state.variables, test)
        return self._final_scores(state, progress, test, predictions), predictions

    def _final_scores(
        self,
        state: steps.TrainState,
        progress: Progress,
        test: np.ndarray,
        predictions: Predictions,
    ) -> dict[str, Any]:
        scores = self.classifier.task.scores
        entry = {"final": scores(predictions.logits, predictions.label)}
        if progress.best is not None:
            entry["best"] = self.evaluator.scores(state.best, test) | progress.best
        return entry

    def train(
        self, runs: Sequence[Run], workdir: epath.Path
    ) -> list[dict[str, Any] | Diverged]:
        """Trains runs side by side to the end, from their newest checkpoints.

        Args:
            runs: at most `most_runs`, with the same number of steps in an epoch.
            workdir: absolute; each run has a folder of its name in it.

        Returns:
            Each run's entry in `results.json`, its `predictions.npz` being written,
            or why it was given up.

        Raises:
            InputError: for a checkpoint that does not fit or can't be written.
            Interrupted: after a signal, with all steps so far saved.
        """
        with StopSignals() as signals, contextlib.ExitStack() as opened:
            opened_runs = [self._open(run, workdir / run.name, opened) for run in runs]
            # They go in step; a run whose last checkpoint is an older one than the
            # others' goes by itself.
            results: dict[Run, dict[str, Any] | Diverged] = {}
            ordered = sorted(opened_runs, key=lambda active: active.step)
            for _, together in itertools.groupby(ordered, lambda active: active.step):
                for active, end in self._fit(list(together), signals):
                    results[active.run] = end
        return [results[run] for run in runs]

    def _open(
        self, run: Run, folder: epath.Path, opened: contextlib.ExitStack
    ) -> ActiveRun:
        """The run as it stands: its newest checkpoint, or its beginning."""
        checkpoints = None
        if self.hosts.first:
            checkpoints = opened.enter_context(Checkpoints(folder / CHECKPOINTS))
        state, progress = self._beginning(run, checkpoints)
        if int(state.step):
            logger.info("%s goes on at step %d", run.name, int(state.step))
        split, key = self.feed.split(run.fold), keys(run)[1]
        return ActiveRun(run, folder, split, key, state, progress, checkpoints)

    def _beginning(
        self, run: Run, checkpoints: Checkpoints | None
    ) -> tuple[steps.TrainState, Progress]:
        found = self.hosts.broadcast(lambda: checkpoints and checkpoints.latest_step())
        if found is None:
            return self.hosts.copy(jax.device_get(self.initial_state(run))), Progress()
        like, metadata = self.abstract_state(), {}
        if checkpoints is not None:
            state, metadata = checkpoints.restore(like)
            state = jax.device_get(state)
        else:
            state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        metadata = self.hosts.broadcast(lambda: metadata)
        return self.hosts.copy(state), Progress(**metadata)

    def _fit(
        self, runs: list[ActiveRun], signals: StopSignals
    ) -> list[tuple[ActiveRun, dict[str, Any] | Diverged]]:
        """Trains runs of the same step to the end, and scores them."""
        steps_per_epoch = self.feed.steps_per_epoch(runs[0].run.fold)
        compiled = self.programs.get(len(runs), steps_per_epoch)
        with Loop(
            compiled,
            runs,
            settings=loop_settings(self.config),
            hosts=self.hosts,
            signals=signals,
            read=lambda active, epoch, start: self.feed.train(
                active.run.fold, active.run.seed, epoch, start
            ),
            score=self.evaluator.scores,
            task=self.classifier.task,
        ) as loop:
            loop.run()
        return [
            (
                active,
                active.diverged
                or self._finish(active, compiled.spread.part(loop.state, i)),
            )
            for i, active in enumerate(runs)
        ]

    def _finish(self, active: ActiveRun, state: steps.TrainState) -> dict[str, Any]:
        """Writes the predictions of a run that is done, and gives its entry."""
        predictions = self.evaluator.predictions(state.variables, active.split.test)
        written = {TEST: predictions}
        if len(active.split.validation):
            written[VALIDATION] = self.evaluator.predictions(
                state.variables, active.split.validation
            )
        if self.hosts.first:
            for name, found in written.items():
                files.write_arrays(active.folder / name, vars(found))
        return {
            "name": active.run.name,
            "fold": active.run.fold,
            "seed": active.run.seed,
            "steps": int(state.step),
            "skipped_steps": int(state.skipped),
            "seconds": round(active.progress.seconds, 1),
        } | self._final_scores(state, active.progress, active.split.test, predictions)
