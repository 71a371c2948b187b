"""Runs: build their parts, train them, checkpoint, resume, score."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import classifier as classifiers
from audiojax import features, files
from audiojax.augment import Augment
from audiojax.classifier import Classifier, Variables
from audiojax.config import Config
from audiojax.datasets import Info, Recordings, batches, parts
from audiojax.datasets import balance as balances
from audiojax.datasets.parts import Split
from audiojax.datasets.store import images
from audiojax.errors import InputError
from audiojax.training import evaluate, optimizer, steps
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.hosts import Hosts
from audiojax.training.loop import Diverged, Lane, Loop, Pace, Program, Run
from audiojax.training.progress import Progress
from audiojax.training.signals import StopSignals

logger = logging.getLogger(__name__)

# With fewer clips on each device, several runs side by side use the devices better
# than one run over all of them.
CLIPS_PER_DEVICE = 32
# Compiled programs kept. On CPUs each takes thousands of memory maps, of which a
# process may have 65530: a dozen of a large network would end it.
MOST_PROGRAMS = 4
PARALLEL = ("auto", "data_parallel", "seed_parallel")


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run reads.

    Attributes:
        recordings: all clips, by number.
        images: [N, mel, frames, C] by clip number in the stage "spectrogram", None in
            the stage "audio".
    """

    recordings: Recordings
    images: np.ndarray | None

    @property
    def info(self) -> Info:
        """Names, classes and folds."""
        return self.recordings.info


def recipe(config: Config) -> optimizer.Recipe:
    """The config's optimizer as the optimizer module takes it."""
    return optimizer.Recipe(**config.optimizer)


def choose_parallel(config: Config, num_runs: int) -> str:
    """How training is laid over devices: "data_parallel" or "seed_parallel".

    Args:
        config: `parallel` and `batch_size` are read. "auto" trains runs side by side
            where a device would get fewer than `CLIPS_PER_DEVICE` clips of a batch.
        num_runs: that wait to be trained.

    Raises:
        InputError: for an unknown choice.
    """
    if config.parallel not in PARALLEL:
        raise InputError(
            f"config.parallel is {config.parallel!r}; choose one of "
            f"{', '.join(PARALLEL)}"
        )
    if config.parallel != "auto":
        return config.parallel
    small = config.batch_size < CLIPS_PER_DEVICE * jax.device_count()
    return "seed_parallel" if num_runs > 1 and small else "data_parallel"


def batch_devices(batch_size: int, devices: Sequence[Any]) -> list[Any]:
    """As many of the devices as can share a batch equally."""
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    if count < len(devices):
        logger.warning(
            "a batch of %d can be shared by %d of the %d devices; the others idle",
            batch_size,
            count,
            len(devices),
        )
    return list(devices[:count])


def open_data(config: Config, recordings: Recordings) -> Data:
    """The data in the form that `config.data.stage` asks for.

    Raises:
        InputError: for an unknown stage, or recordings at another rate.
    """
    rate, stage = config.features.sample_rate, config.data.stage
    if recordings.info.sample_rate != rate:
        raise InputError(
            f"{recordings.info.name} is at {recordings.info.sample_rate} Hz, but "
            f"config.features.sample_rate is {rate}; make them the same"
        )
    if stage == "audio":
        return Data(recordings, images=None)
    if stage != "spectrogram":
        raise InputError(
            f"config.data.stage is {stage!r}; choose spectrogram (each image is made "
            "once) or audio (images are made in the training step)"
        )
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
        local = jax.local_devices()
        self._eval_devices = batch_devices(config.batch_size, local)
        self._eval_step = steps.data_parallel_eval(
            steps.make_eval_step(self.classifier), self._eval_devices
        )
        self._programs: dict[tuple[int, int], Program] = {}
        # By fold: what every seed of it shares.
        self._splits: dict[int, Split] = {}
        self._statistics: dict[int, Variables] = {}

    def _check_batch_size(self) -> None:
        count, size = self.hosts.count, self.config.batch_size
        if count > 1 and size % jax.device_count():
            raise InputError(
                f"config.batch_size is {size}, which {jax.device_count()} devices of "
                f"{count} processes can't share equally; give a multiple"
            )

    @property
    def lanes(self) -> int:
        """How many runs can train side by side."""
        if self.parallel == "data_parallel":
            return 1
        return jax.local_device_count()

    def split(self, run: Run) -> Split:
        """The run's clips.

        Raises:
            InputError: as `parts.split`.
        """
        if run.fold not in self._splits:
            self._splits[run.fold] = parts.split(
                self.data.info,
                run.fold,
                self.config.sweep.validation,
                allow_leaks=self.config.data.allow_leaks,
            )
        return self._splits[run.fold]

    def steps_per_epoch(self, run: Run) -> int:
        """Batches of an epoch; runs side by side must have as many."""
        return batches.num_batches(len(self.split(run).train), self.config.batch_size)

    def program(self, lanes: int, steps_per_epoch: int) -> Program:
        """What is compiled, once for each number of lanes and of steps."""
        key = lanes, steps_per_epoch
        if key not in self._programs:
            if len(self._programs) == MOST_PROGRAMS:
                self._programs.clear()
                jax.clear_caches()
            self._programs[key] = self._build(lanes, steps_per_epoch)
        return self._programs[key]

    def _build(self, lanes: int, steps_per_epoch: int) -> Program:
        spread = self._spread(lanes)
        settings, epochs = recipe(self.config), self.config.epochs
        step = steps.make_train_step(
            self.classifier,
            optimizer.create(settings, steps_per_epoch, epochs),
            spread.axis_name,
            Augment(**self.config.augment),
        )
        return Program(
            spread=spread,
            steps_per_epoch=steps_per_epoch,
            num_steps=epochs * steps_per_epoch,
            learning_rate=optimizer.learning_rate(settings, steps_per_epoch, epochs),
            train_step=spread.compiled(step),
        )

    def _spread(self, lanes: int) -> steps.Spread:
        if self.parallel == "seed_parallel":
            return steps.SeedParallel(jax.local_devices()[:lanes])
        if self.hosts.count > 1:
            return steps.DataParallel(jax.local_devices(), everywhere=True)
        devices = batch_devices(self.config.batch_size, jax.local_devices())
        return steps.DataParallel(devices)

    def eval_batches(self, indices: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """Batches of the clips `indices` in their order."""
        return batches.eval_batches(
            self.data.recordings,
            indices,
            batch_size=self.config.batch_size,
            policy=self.classifier.clip_policy,
            image=self.data.images,
        )

    def _pace(self) -> Pace:
        fields = (field.name for field in dataclasses.fields(Pace))
        return Pace(**{name: self.config[name] for name in fields})

    def _train_batches(
        self, lane: Lane, epoch: int, start: int
    ) -> Iterable[dict[str, np.ndarray]]:
        size = self.config.batch_size // self.hosts.count
        first = self.hosts.index * size
        balance, weights = self.config.data.balance, None
        if balance != "none":
            weights = self._clip_weights(lane.split.train)
        stream = batches.train_batches(
            self.data.recordings,
            lane.split.train,
            batch_size=self.config.batch_size,
            policy=self.classifier.clip_policy,
            seed=lane.run.seed,
            epoch=epoch,
            start=start,
            rows=slice(first, first + size),
            image=self.data.images,
            weights=weights if balance == "sampling" else None,
        )
        if balance != "class_weights":
            return stream
        of_clip = np.zeros(len(self.data.recordings), np.float32)
        of_clip[lane.split.train] = weights
        return ({**batch, "weight": of_clip[batch["index"]]} for batch in stream)

    def _clip_weights(self, indices: np.ndarray) -> np.ndarray:
        info = self.data.info
        labels = [info.clips[i].labels for i in indices]
        return balances.clip_weights(labels, info.num_classes)

    def _create_state(self, variables: Variables) -> steps.TrainState:
        # The optimizer's state is of the same form for every length of the schedule.
        updates = optimizer.create(recipe(self.config), 100, self.config.epochs)
        pick_best = self.config.sweep.validation is not None
        return steps.create_state(variables, updates, pick_best=pick_best)

    def abstract_state(self) -> steps.TrainState:
        """Shapes and types of the state, without computing or reading anything."""
        random = dataclasses.replace(self.classifier, weights=None)
        return jax.eval_shape(
            lambda key: self._create_state(random.init(key)), jax.random.key(0)
        )

    def initial_state(self, run: Run) -> steps.TrainState:
        """The state before the first step."""
        variables = self.classifier.init(_keys(run)[0])
        if self.config.model.standardize:
            if run.fold not in self._statistics:
                self._statistics[run.fold] = self._image_statistics(run)
            variables["input"] = self._statistics[run.fold]
        return self._create_state(variables)

    def _image_statistics(self, run: Run) -> Variables:
        image = jax.jit(self.classifier.batch_image)
        mean, std = features.image_statistics(
            (np.asarray(image(batch))[batch["mask"] > 0])
            for batch in self.eval_batches(self.split(run).train)
        )
        return {"mean": mean, "std": std}

    def predict(
        self, variables: Variables, indices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits, labels and clip numbers of the clips `indices`."""

        def eval_step(variables, batch):
            return self._eval_step(
                variables, steps.shard(batch, len(self._eval_devices))
            )

        # Processes share the clips, if there are enough for each to get one.
        shared = self.hosts if len(indices) >= self.hosts.count else Hosts()
        logits, label, index = (
            shared.gather(values, len(indices))
            for values in evaluate.predict(
                eval_step, variables, self.eval_batches(shared.share(indices))
            )
        )
        return logits, label, index

    def predictions(
        self, variables: Variables, indices: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The clips' `logits`, `label` and `filename`."""
        logits, label, indices = self.predict(variables, indices)
        names = [self.data.info.clips[i].filename for i in indices]
        return {"logits": logits, "label": label, "filename": np.array(names)}

    def scores(self, variables: Variables, indices: np.ndarray) -> dict[str, Any]:
        """Scores of the clips `indices`."""
        logits, label, _ = self.predict(variables, indices)
        return self.classifier.task.scores(logits, label)

    def evaluate(
        self, run: Run, folder: epath.Path
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Scores a finished run again, from its newest checkpoint.

        Returns:
            The entry's `final`, and `best` if there is one, and the predictions.
        """
        with Checkpoints(folder / "checkpoints") as checkpoints:
            state, metadata = checkpoints.restore(self.abstract_state())
        lane_split = self.split(run)
        predictions = self.predictions(state.variables, lane_split.test)
        return (
            self._final_scores(
                state, Progress(**metadata), lane_split.test, predictions
            ),
            predictions,
        )

    def _final_scores(
        self,
        state: steps.TrainState,
        progress: Progress,
        test: np.ndarray,
        predictions: dict[str, np.ndarray],
    ) -> dict[str, Any]:
        scores = self.classifier.task.scores
        entry = {"final": scores(predictions["logits"], predictions["label"])}
        if progress.best is not None:
            entry["best"] = self.scores(state.best, test) | progress.best
        return entry

    def train(
        self, runs: Sequence[Run], workdir: epath.Path
    ) -> list[dict[str, Any] | Diverged]:
        """Trains runs side by side to the end, from their newest checkpoints.

        Args:
            runs: at most `lanes`, with the same number of steps in an epoch.
            workdir: absolute; each run has a folder of its name in it.

        Returns:
            Each run's entry in `results.json`, its `predictions.npz` being written,
            or why it was given up.

        Raises:
            InputError: for a checkpoint that does not fit or can't be written.
            Interrupted: after a signal, with all steps so far saved.
        """
        with StopSignals() as signals, contextlib.ExitStack() as opened:
            lanes = [self._open(run, workdir / run.name, opened) for run in runs]
            # Lanes go in step; a run whose last checkpoint is an older one than the
            # others' goes by itself.
            ordered = sorted(lanes, key=lambda lane: lane.step)
            results: dict[Run, dict[str, Any] | Diverged] = {}
            for _, together in itertools.groupby(ordered, key=lambda lane: lane.step):
                for lane, entry in self._fit(list(together), signals):
                    results[lane.run] = entry
        return [results[run] for run in runs]

    def _open(self, run: Run, folder: epath.Path, opened: contextlib.ExitStack) -> Lane:
        """The run as it stands: its newest checkpoint, or its beginning."""
        checkpoints = None
        if self.hosts.first:
            checkpoints = opened.enter_context(Checkpoints(folder / "checkpoints"))
        state, progress = self._beginning(run, checkpoints)
        if int(state.step):
            logger.info("%s goes on at step %d", run.name, int(state.step))
        key = _keys(run)[1]
        return Lane(run, folder, self.split(run), key, state, progress, checkpoints)

    def _beginning(
        self, run: Run, checkpoints: Checkpoints | None
    ) -> tuple[steps.TrainState, Progress]:
        found = self.hosts.tell(lambda: checkpoints and checkpoints.latest_step())
        if found is None:
            return self.hosts.copy(jax.device_get(self.initial_state(run))), Progress()
        like, metadata = self.abstract_state(), {}
        if checkpoints is not None:
            state, metadata = checkpoints.restore(like)
            state = jax.device_get(state)
        else:
            state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        metadata = self.hosts.tell(lambda: metadata)
        return self.hosts.copy(state), Progress(**metadata)

    def _fit(
        self, lanes: list[Lane], signals: StopSignals
    ) -> list[tuple[Lane, dict[str, Any] | Diverged]]:
        """Trains lanes of the same step to the end, and scores them."""
        steps_per_epoch = self.steps_per_epoch(lanes[0].run)
        program = self.program(len(lanes), steps_per_epoch)
        with Loop(
            program,
            lanes,
            pace=self._pace(),
            hosts=self.hosts,
            signals=signals,
            read=self._train_batches,
            score=self.scores,
            task=self.classifier.task,
        ) as loop:
            loop.run()
        results: list[tuple[Lane, dict[str, Any] | Diverged]] = []
        for i, lane in enumerate(lanes):
            state = program.spread.part(loop.state, i)
            entry = lane.diverged or self._finish(lane, state)
            results.append((lane, entry))
        return results

    def _finish(self, lane: Lane, state: steps.TrainState) -> dict[str, Any]:
        """Writes the predictions of a run that is done, and gives its entry."""
        predictions = self.predictions(state.variables, lane.split.test)
        written = {"predictions.npz": predictions}
        if len(lane.split.validation):
            written["validation.npz"] = self.predictions(
                state.variables, lane.split.validation
            )
        if self.hosts.first:
            for name, arrays in written.items():
                files.write_arrays(lane.folder / name, arrays)
        return {
            "name": lane.run.name,
            "fold": lane.run.fold,
            "seed": lane.run.seed,
            "steps": int(state.step),
            "skipped_steps": int(state.skipped),
            "seconds": round(lane.progress.seconds, 1),
        } | self._final_scores(state, lane.progress, lane.split.test, predictions)


def _keys(run: Run) -> jax.Array:
    """One key decides the head, one the steps; the order has a stream of its own."""
    return jax.random.split(jax.random.key(run.seed))
