"""One run: build its parts, train, checkpoint, resume, score."""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from audiojax import classifier as classifiers
from audiojax import evaluate, features, files, optimizer, steps
from audiojax.augment import Augment
from audiojax.checkpoints import Checkpoints
from audiojax.classifier import Classifier, Variables
from audiojax.config import Config
from audiojax.datasets import Info, Recordings, batches, checks
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

# Steps that are dispatched before the first one's metrics are asked for: the host
# prepares the next batches while the device computes.
STEPS_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: the fold that is tested on, and the seed of all that is random."""

    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"fold{self.fold}-seed{self.seed}"


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


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """A signal asked the run to stop; what it had done is saved."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class StopSignals:
    """Notes the first SIGINT or SIGTERM; a second one acts as usual."""

    def __init__(self):
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _frame: object) -> None:
        self.signum = signum
        signal.signal(signum, self._previous[signum])


class Scalars:
    """Appends scalars to `metrics.jsonl` and to TensorBoard's event file."""

    def __init__(self, run_dir: epath.Path, *, last_step: int, tensorboard: bool):
        """Opens both, dropping what was written after `last_step`.

        Args:
            run_dir: the run's folder.
            last_step: the step from which training goes on.
            tensorboard: whether to write event files too.
        """
        self._path = run_dir / "metrics.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= last_step]
        self._text = "".join(f"{line}\n" for line in kept)
        self._writer = None
        if tensorboard:
            # TensorFlow comes with it: seconds and hundreds of megabytes, so late.
            from clu import metric_writers

            self._writer = metric_writers.SummaryWriter(str(run_dir))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of one moment; the file is never half a line."""
        self._text += json.dumps({"step": step, **scalars}) + "\n"
        files.write_bytes(self._path, self._text.encode())
        if self._writer is not None:
            self._writer.write_scalars(step, scalars)
            self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()


def _step_of(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        raise InputError(
            f"metrics.jsonl holds a line that is not ours: {line[:80]!r}; move the "
            "file away to go on"
        ) from None


@dataclasses.dataclass
class Progress:
    """Sums over the clips of the epoch so far, kept in the checkpoint.

    Attributes:
        loss_sum: of the cross-entropy, in nats.
        correct: clips whose largest logit was the right one.
        count: clips.
        skipped_in_a_row: updates left out since the last that was made.
        seconds: that the run has taken.
    """

    loss_sum: float = 0.0
    correct: float = 0.0
    count: float = 0.0
    skipped_in_a_row: int = 0
    seconds: float = 0.0

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Adds one step; one that was not finite only counts as skipped."""
        if not metrics["finite"]:
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        self.loss_sum += float(metrics["loss_sum"])
        self.correct += float(metrics["correct"])
        self.count += float(metrics["count"])

    def next_epoch(self) -> Progress:
        """Sums for the epoch to come."""
        return Progress(seconds=self.seconds, skipped_in_a_row=self.skipped_in_a_row)

    def means(self) -> dict[str, float]:
        """Mean loss and accuracy so far; nothing before the first clip."""
        if not self.count:
            return {}
        return {
            "loss": self.loss_sum / self.count,
            "accuracy": self.correct / self.count,
        }


def recipe(config: Config) -> optimizer.Recipe:
    """The config's optimizer as the optimizer module takes it."""
    return optimizer.Recipe(**config.optimizer)


def batch_devices(batch_size: int) -> list[Any]:
    """As many devices as can share a batch equally."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    if count < len(devices):
        logger.warning(
            "a batch of %d can be shared by %d of the %d devices; the others idle",
            batch_size,
            count,
            len(devices),
        )
    return devices[:count]


def split(
    info: Info, fold: int, *, allow_leaks: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Clip numbers to train on and to test on.

    Raises:
        InputError: if the data set has no such fold, or only it, if a class is tested
            and never trained, or a source recording has clips on both sides.
    """
    if fold not in info.folds or len(info.folds) < 2:
        raise InputError(
            f"config.sweep.folds names fold {fold}; {info.name} has folds "
            f"{', '.join(map(str, info.folds))}, and training needs another one"
        )
    folds = np.array([clip.fold for clip in info.clips])
    train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    checks.check_split(info, train, test, allow_leaks=allow_leaks)
    return train, test


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
    parts = classifiers.create(config, recordings.info.classes)
    images = batches.image_cache(
        recordings,
        key=repr(parts.log_mel),
        shape=parts.image_shape,
        compute=jax.jit(parts.batch_image),
        clipping=parts.clipping,
        batch_size=config.batch_size,
        cache_dir=config.data.data_dir,
    )
    return Data(recordings, images)


class Trainer:
    """One run's parts, built from the config, and what is done with them."""

    def __init__(self, config: Config, data: Data, run: Run):
        """Builds classifier, optimizer and compiled steps; trains nothing yet.

        Args:
            config: the whole config.
            data: as `open_data` gives it.
            run: which fold and seed.

        Raises:
            InputError: for what can't be built.
        """
        self.config, self.data, self.run = config, data, run
        self.train_indices, self.test_indices = split(
            data.info, run.fold, allow_leaks=config.data.allow_leaks
        )
        self.steps_per_epoch = batches.num_batches(
            len(self.train_indices), config.batch_size
        )
        self.num_steps = config.epochs * self.steps_per_epoch
        self.devices = batch_devices(config.batch_size)
        self.classifier: Classifier = classifiers.create(
            config, data.info.classes, axis_name=steps.AXIS
        )
        settings = recipe(config)
        self.learning_rate = optimizer.learning_rate(
            settings, self.steps_per_epoch, config.epochs
        )
        self.optimizer = optimizer.create(settings, self.steps_per_epoch, config.epochs)
        self._train_step = steps.data_parallel(
            steps.make_train_step(
                self.classifier,
                self.optimizer,
                steps.AXIS,
                Augment(**config.augment),
            ),
            self.devices,
        )
        self._eval_step = steps.data_parallel_eval(
            steps.make_eval_step(self.classifier), self.devices
        )
        # One key decides the head and dropout; the order has a stream of its own.
        self.init_key, self.step_key = jax.random.split(jax.random.key(run.seed))

    def eval_batches(self, indices: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """Batches of the clips `indices` in their order."""
        return batches.eval_batches(
            self.data.recordings,
            indices,
            batch_size=self.config.batch_size,
            clipping=self.classifier.clipping,
            image=self.data.images,
        )

    def _train_batches(self, epoch: int, start: int) -> Iterable[dict[str, np.ndarray]]:
        return batches.train_batches(
            self.data.recordings,
            self.train_indices,
            batch_size=self.config.batch_size,
            clipping=self.classifier.clipping,
            seed=self.run.seed,
            epoch=epoch,
            start=start,
            image=self.data.images,
        )

    def abstract_state(self) -> steps.TrainState:
        """Shapes and types of the state, without computing or reading anything."""
        random = dataclasses.replace(self.classifier, weights=None)
        return jax.eval_shape(
            lambda key: steps.create_state(random.init(key), self.optimizer),
            self.init_key,
        )

    def initial_state(self) -> steps.TrainState:
        """The state before the first step."""
        variables = self.classifier.init(self.init_key)
        if self.config.model.standardize:
            image = jax.jit(self.classifier.batch_image)
            mean, std = features.image_statistics(
                (np.asarray(image(batch))[batch["mask"] > 0])
                for batch in self.eval_batches(self.train_indices)
            )
            variables["input"] = {"mean": mean, "std": std}
        return steps.create_state(variables, self.optimizer)

    def predict(
        self, variables: Variables, indices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits, labels and clip numbers of the clips `indices`."""

        def eval_step(variables, batch):
            return self._eval_step(variables, steps.shard(batch, len(self.devices)))

        return evaluate.predict(eval_step, variables, self.eval_batches(indices))

    def predictions(self, variables: Variables) -> dict[str, np.ndarray]:
        """The test clips' `logits`, `label` and `filename`."""
        logits, label, indices = self.predict(variables, self.test_indices)
        names = [self.data.info.clips[i].filename for i in indices]
        return {"logits": logits, "label": label, "filename": np.array(names)}

    def restore(self, run_dir: epath.Path) -> Variables:
        """The variables of the run's newest checkpoint."""
        with Checkpoints(run_dir / "checkpoints") as checkpoints:
            state, _ = checkpoints.restore(self.abstract_state())
        return jax.device_get(state).variables

    def train(self, run_dir: epath.Path) -> dict[str, Any]:
        """Trains to the end, from the newest checkpoint if there is one.

        Args:
            run_dir: the run's folder, absolute.

        Returns:
            The run's entry in `results.json`; `predictions.npz` is written.

        Raises:
            InputError: if the training diverged.
            Interrupted: after a signal, with all steps so far saved.
        """
        with (
            StopSignals() as signals,
            Checkpoints(run_dir / "checkpoints") as checkpoints,
        ):
            if checkpoints.latest_step() is None:
                state, progress = self.initial_state(), Progress()
            else:
                state, metadata = checkpoints.restore(self.abstract_state())
                state, progress = jax.device_get(state), Progress(**metadata)
                logger.info("%s goes on at step %d", self.run.name, int(state.step))
            state, progress = self._fit(state, progress, run_dir, checkpoints, signals)
            predictions = self.predictions(state.variables)
        files.write_arrays(run_dir / "predictions.npz", predictions)
        return {
            "name": self.run.name,
            "fold": self.run.fold,
            "seed": self.run.seed,
            "steps": int(state.step),
            "skipped_steps": int(state.skipped),
            "seconds": round(progress.seconds, 1),
            "final": evaluate.scores(predictions["logits"], predictions["label"]),
        }

    def _fit(
        self,
        state: steps.TrainState,
        progress: Progress,
        run_dir: epath.Path,
        checkpoints: Checkpoints,
        signals: StopSignals,
    ) -> tuple[steps.TrainState, Progress]:
        step, begun = int(state.step), time.monotonic() - progress.seconds
        saved_at = time.monotonic()
        scalars = Scalars(run_dir, last_step=step, tensorboard=self.config.tensorboard)
        bar = tqdm(
            total=self.config.epochs * len(self.train_indices),
            initial=self._clips_seen(step),
            desc=self.run.name,
            unit=" clips",
            disable=None,  # where no one watches, the lines of each epoch are enough
        )
        pending: collections.deque[steps.Metrics] = collections.deque()

        def settle(ahead: int) -> None:
            while len(pending) > ahead:
                progress.add(jax.device_get(pending.popleft()))
            bar.set_postfix(progress.means(), refresh=False)

        def save() -> None:
            settle(0)
            progress.seconds = time.monotonic() - begun
            checkpoints.save(step, state, dataclasses.asdict(progress))

        try:
            while step < self.num_steps:
                epoch, start = divmod(step, self.steps_per_epoch)
                for batch in self._train_batches(epoch, start):
                    state, metrics = self._train_step(
                        state, steps.shard(batch, len(self.devices)), self.step_key
                    )
                    step += 1
                    pending.append(metrics)
                    settle(STEPS_AHEAD)
                    bar.update(int(batch["mask"].sum()))
                    self._check_diverged(progress, step, save)
                    if step % self.steps_per_epoch == 0:
                        settle(0)
                        self._end_epoch(step, state, progress, scalars, bar)
                        progress = progress.next_epoch()
                    if signals.signum is not None:
                        save()
                        checkpoints.wait()
                        raise Interrupted(signals.signum)
                    due = time.monotonic() - saved_at > self.config.checkpoint_seconds
                    if due or step == self.num_steps:
                        save()
                        saved_at = time.monotonic()
        finally:
            bar.close()
            scalars.close()
        return state, progress

    def _clips_seen(self, step: int) -> int:
        epoch, start = divmod(step, self.steps_per_epoch)
        in_epoch = min(start * self.config.batch_size, len(self.train_indices))
        return epoch * len(self.train_indices) + in_epoch

    def _check_diverged(self, progress: Progress, step: int, save: Any) -> None:
        if progress.skipped_in_a_row < self.config.max_skipped_in_a_row:
            return
        save()
        raise InputError(
            f"{self.run.name} diverged: the loss or a gradient was not finite in "
            f"{progress.skipped_in_a_row} steps in a row up to step {step}; the last "
            "good parameters are in its checkpoint; lower "
            "config.optimizer.learning_rate and use another --workdir"
        )

    def _end_epoch(
        self,
        step: int,
        state: steps.TrainState,
        progress: Progress,
        scalars: Scalars,
        bar: tqdm,
    ) -> None:
        epoch = step // self.steps_per_epoch
        values = {f"train_{name}": value for name, value in progress.means().items()}
        values["learning_rate"] = np.asarray(self.learning_rate(step - 1)).item()
        every = self.config.evaluate_every_epochs
        if every and (epoch % every == 0 or epoch == self.config.epochs):
            logits, label, _ = self.predict(state.variables, self.test_indices)
            scored = evaluate.scores(logits, label)
            values |= {f"test_{name}": scored[name] for name in ("accuracy", "loss")}
        scalars.write(step, values)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        bar.clear()
        logger.info(
            "%s epoch %d/%d  %s", self.run.name, epoch, self.config.epochs, text
        )
