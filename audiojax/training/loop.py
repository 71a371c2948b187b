"""The steps of runs that train side by side: metrics, epochs, checkpoints, signals."""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from audiojax.datasets.parts import Split
from audiojax.errors import InputError, Interrupted
from audiojax.training import steps
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.evaluate import Evaluator
from audiojax.training.feed import Batch
from audiojax.training.program import Program
from audiojax.training.progress import Progress, Scalars
from audiojax.training.signals import StopSignals
from audiojax.training.steps import TrainState
from audiojax.workdir import Run

logger = logging.getLogger(__name__)

# Steps that are dispatched before the first one's metrics are asked for: the host
# prepares the next batches while the device computes.
STEPS_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long to train, and what to do how often.

    Attributes:
        epochs: in all.
        batch_size: clips of a step, over all devices.
        evaluate_every_epochs: 0 for never.
        checkpoint_seconds: between checkpoints.
        max_skipped_in_a_row: updates left out before a run is given up.
        tensorboard: whether to write event files.

    Raises:
        InputError: a number is too small.
    """

    epochs: int
    batch_size: int
    evaluate_every_epochs: int
    checkpoint_seconds: float
    max_skipped_in_a_row: int
    tensorboard: bool

    def __post_init__(self):
        from_one = ("epochs", "batch_size", "max_skipped_in_a_row")
        for name in (*from_one, "evaluate_every_epochs", "checkpoint_seconds"):
            value, least = getattr(self, name), int(name in from_one)
            if value < least:
                raise InputError(f"config.{name} is {value}; give at least {least}")


def keys(run: Run) -> jax.Array:
    """Two keys: of what is drawn at the beginning, and of the steps.

    The order of the clips has a stream of its own.
    """
    return jax.random.split(jax.random.key(run.seed))


@dataclasses.dataclass(frozen=True)
class Diverged:
    """Why a run was given up: what was found and what to do."""

    message: str


@dataclasses.dataclass
class ActiveRun:
    """One of the runs that train side by side.

    Attributes:
        run: which.
        folder: the run's, absolute.
        split: its clips.
        state: where it begins, on the host.
        progress: of its epoch.
        checkpoints: None in processes that write nothing.
        diverged: why it was given up, if it was.
    """

    run: Run
    folder: epath.Path
    split: Split
    state: TrainState
    progress: Progress
    checkpoints: Checkpoints | None
    diverged: Diverged | None = None

    @property
    def step(self) -> int:
        """Batches seen at the beginning."""
        return int(self.state.step)


class Loop:
    """The steps of runs that train together; a context, which closes its files."""

    def __init__(
        self,
        program: Program,
        runs: list[ActiveRun],
        settings: LoopSettings,
        evaluator: Evaluator,
        signals: StopSignals,
    ):
        """Puts the states of runs of the same step on their devices.

        The evaluator scores them, and its feed gives their batches; the signals are
        asked after every step.
        """
        self.program, self.runs, self.settings = program, runs, settings
        self._evaluator, self._signals = evaluator, signals
        self._hosts = evaluator.feed.hosts
        self.step = runs[0].step
        self.state = program.spread.join([active.state for active in runs])
        self._keys = program.spread.join([keys(active.run)[1] for active in runs])
        self._begun = self._saved_at = time.monotonic()
        self._seconds_before = [active.progress.seconds for active in runs]
        self._pending = collections.deque[tuple[steps.Metrics, Any]]()
        self._signum = 0

    def __enter__(self) -> Loop:
        events = self.settings.tensorboard
        self._scalars = [
            Scalars(active.folder, active.progress, tensorboard=events)
            for active in self.runs
            if self._hosts.first
        ]
        first, others = self.runs[0].run.name, len(self.runs) - 1
        self._bar = tqdm(
            total=self.settings.epochs * self._epoch_clips,
            initial=self._clips_seen,
            desc=f"{first} and {others}" if others else first,
            unit=" clips",
            # Where no one watches, the lines of each epoch are enough.
            disable=None if self._hosts.first else True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        for scalars in self._scalars:
            scalars.close()

    @property
    def _sizes(self) -> list[int]:
        return [self._evaluator.feed.epoch_size(x.run.fold) for x in self.runs]

    @property
    def _epoch_clips(self) -> int:
        return sum(self._sizes)

    @property
    def _clips_seen(self) -> int:
        epoch, start = divmod(self.step, self.program.steps_per_epoch)
        seen = start * self.settings.batch_size
        in_epoch = sum(min(seen, size) for size in self._sizes)
        return epoch * self._epoch_clips + in_epoch

    @property
    def _training(self) -> list[tuple[int, ActiveRun]]:
        """Runs that were not given up, with their numbers."""
        return [(i, run) for i, run in enumerate(self.runs) if run.diverged is None]

    def run(self) -> None:
        """Trains to the end of all runs, or until a signal or divergence of all."""
        if self._hosts.count == 1 and self._signals.signum:  # before it compiles
            raise Interrupted(self._signals.signum)
        for parts in self._batches():
            self._advance(parts)
            if not self._training:
                return

    def _batches(self) -> Iterator[tuple[Batch, ...]]:
        """Every run's next batch, to the end of the training.

        An epoch is opened before the last step of the one before, because opening it
        takes longer than a step of a fast device.
        """
        read = self._evaluator.feed.train

        def opened(epoch: int, start: int) -> list[Iterable[Batch]]:
            return [read(x.run.fold, x.run.seed, epoch, start) for x in self.runs]

        steps_per_epoch, epochs = self.program.steps_per_epoch, self.settings.epochs
        epoch, start = divmod(self.step, steps_per_epoch)
        streams = opened(epoch, start) if epoch < epochs else []
        while streams:
            following: list[Iterable[Batch]] = []
            for place, parts in enumerate(zip(*streams, strict=True), start + 1):
                if place == steps_per_epoch and epoch + 1 < epochs:
                    following = opened(epoch + 1, 0)
                yield parts
            streams, epoch, start = following, epoch + 1, 0

    def _advance(self, parts: Sequence[dict[str, np.ndarray]]) -> None:
        """One step, and what is due after it."""
        self.state, metrics = self.program.train_step(
            self.state, self.program.spread.batch(parts), self._keys
        )
        self.step += 1
        self._pending.append((metrics, self._hosts.largest(self._signals.signum)))
        self._settle(STEPS_AHEAD)
        self._bar.update(sum(int(part["mask"].sum()) for part in parts))
        self._give_up_diverged()
        if self.step % self.program.steps_per_epoch == 0:
            self._settle(0)
            self._end_epoch()
        if self._hosts.count == 1:
            self._signum = self._signals.signum
        if self._signum:
            self._save(wait=True)
            raise Interrupted(self._signum)
        due = time.monotonic() - self._saved_at > self.settings.checkpoint_seconds
        if due or self.step == self.settings.epochs * self.program.steps_per_epoch:
            self._save()

    def _settle(self, ahead: int) -> None:
        """Reads the metrics of all steps but the last `ahead`."""
        while len(self._pending) > ahead:
            metrics, signum = self._pending.popleft()
            self._signum = max(self._signum, int(signum))
            for i, active in self._training:
                active.progress.add(self.program.spread.part(metrics, i))
        if self._training:
            self._bar.set_postfix(self._training[0][1].progress.means(), refresh=False)

    def _save(self, wait: bool = False) -> None:
        self._settle(0)
        seconds = time.monotonic() - self._begun
        for i, active in self._training:
            active.progress.seconds = self._seconds_before[i] + seconds
            if active.checkpoints is not None:
                # The next step may write into the memory that these arrays are in.
                state = jax.tree.map(np.array, self.program.spread.part(self.state, i))
                progress = dataclasses.asdict(active.progress)
                active.checkpoints.save(self.step, state, progress)
        for _, active in self._training:
            if wait and active.checkpoints is not None:
                active.checkpoints.wait()
        self._saved_at = time.monotonic()

    def _give_up_diverged(self) -> None:
        limit = self.settings.max_skipped_in_a_row
        diverged = [
            active
            for _, active in self._training
            if active.progress.skipped_in_a_row >= limit
        ]
        if diverged:
            self._save()
        for active in diverged:
            active.diverged = Diverged(
                f"{active.run.name} diverged: the loss or a gradient was not finite in "
                f"{active.progress.skipped_in_a_row} steps in a row up to step "
                f"{self.step}; the last good parameters are in its checkpoint; lower "
                "config.optimizer.learning_rate and use another --workdir"
            )

    def _end_epoch(self) -> None:
        epoch = self.step // self.program.steps_per_epoch
        rate = np.asarray(self.program.learning_rate(self.step - 1)).item()
        every = self.settings.evaluate_every_epochs
        due = every and (epoch % every == 0 or epoch == self.settings.epochs)
        better = np.zeros(len(self.runs), bool)
        for i, active in self._training:
            means = active.progress.means()
            values = {f"train_{name}": value for name, value in means.items()}
            values["learning_rate"] = rate
            if due:
                better[i] = self._evaluate(i, active, epoch, values)
            active.progress.lines.append({"step": self.step, **values})
            if self._hosts.first:
                self._scalars[i].write()
                text = "  ".join(f"{name} {x:.4g}" for name, x in values.items())
                place = f"{active.run.name} epoch {epoch}/{self.settings.epochs}"
                self._bar.clear()
                logger.info("%s  %s", place, text)
            active.progress.next_epoch()
        if better.any():
            self.state = steps.keep_best(
                self.state, self.program.spread.join(list(better))
            )

    def _evaluate(
        self, i: int, active: ActiveRun, epoch: int, values: dict[str, float]
    ) -> bool:
        """Adds a run's scores to the values; whether the epoch is its best so far."""
        variables = self.program.spread.part(self.state.model_variables, i)
        score, task = self._evaluator.scores, self._evaluator.task
        found = {}
        if len(active.split.validation):
            found["validation"] = score(variables, active.split.validation)
        found["test"] = score(variables, active.split.test)
        for part, scores in found.items():
            values |= {f"{part}_{name}": scores[name] for name in (task.metric, "loss")}
        if self.state.ema is not None:
            variables = self.program.spread.part(self.state.variables, i)
            raw = score(variables, active.split.test)
            values[f"raw_test_{task.metric}"] = raw[task.metric]
        if "validation" not in found:
            return False
        better = active.progress.is_best(found["validation"], task)
        if better:
            active.progress.best = {"epoch": epoch, "validation": found["validation"]}
        return better
