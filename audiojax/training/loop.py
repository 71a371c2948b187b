"""The steps of runs that train side by side: metrics, epochs, checkpoints, signals."""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from tqdm import tqdm

from audiojax.classifier import Variables
from audiojax.datasets.parts import Split
from audiojax.errors import InputError, Interrupted
from audiojax.task import Task
from audiojax.training import steps
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.hosts import Hosts
from audiojax.training.progress import Progress, Scalars
from audiojax.training.signals import StopSignals

logger = logging.getLogger(__name__)

# Steps that are dispatched before the first one's metrics are asked for: the host
# prepares the next batches while the device computes.
STEPS_AHEAD = 2

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: the fold that is tested on, and the seed of all that is random."""

    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"fold{self.fold}-seed{self.seed}"


class Diverged(InputError):  # noqa: N818 - how a run ended
    """The loss or a gradient was not finite in too many steps in a row."""


@dataclasses.dataclass
class Lane:
    """One of the runs that train side by side.

    Attributes:
        run: which.
        folder: the run's, absolute.
        split: its clips.
        key: of its steps.
        state: where it begins, on the host.
        progress: of its epoch.
        checkpoints: None in processes that write nothing.
        diverged: why it was given up, if it was.
    """

    run: Run
    folder: epath.Path
    split: Split
    key: jax.Array
    state: steps.TrainState
    progress: Progress
    checkpoints: Checkpoints | None
    diverged: Diverged | None = None

    @property
    def step(self) -> int:
        """Batches seen at the beginning."""
        return int(self.state.step)


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled for a number of lanes and of steps in an epoch.

    Attributes:
        spread: how the lanes are laid over the devices.
        steps_per_epoch: batches of an epoch.
        num_steps: batches of the whole training.
        learning_rate: by step.
        train_step: states, batches, keys -> states, metrics, joined by `spread`.
    """

    spread: steps.Spread
    steps_per_epoch: int
    num_steps: int
    learning_rate: optax.Schedule
    train_step: Any


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long to train, and what to do how often.

    Attributes:
        epochs: in all.
        batch_size: clips of a step, over all devices.
        evaluate_every_epochs: 0 for never.
        checkpoint_seconds: between checkpoints.
        max_skipped_in_a_row: updates left out before a run is given up.
        tensorboard: whether to write event files.
    """

    epochs: int
    batch_size: int
    evaluate_every_epochs: int
    checkpoint_seconds: float
    max_skipped_in_a_row: int
    tensorboard: bool


class Loop:
    """The steps of lanes that train together; a context, which closes its files."""

    def __init__(
        self,
        program: Program,
        lanes: list[Lane],
        *,
        pace: Pace,
        hosts: Hosts,
        signals: StopSignals,
        read: Callable[[Lane, int, int], Iterable[Batch]],
        score: Callable[[Variables, np.ndarray], dict[str, Any]],
        task: Task,
    ):
        """Puts the lanes' states on their devices.

        Args:
            program: made for as many lanes.
            lanes: of the same step.
            pace: how long, and what how often.
            hosts: the processes that share each lane.
            signals: asked after every step.
            read: lane, epoch, first batch -> this process's rows of the batches.
            score: variables, clip numbers -> scores.
            task: that tells better scores from worse.
        """
        self.program, self.lanes, self.pace, self.hosts = program, lanes, pace, hosts
        self.signals, self._read, self._score = signals, read, score
        self._task = task
        self.step = lanes[0].step
        self.state = program.spread.join([lane.state for lane in lanes])
        self._keys = program.spread.join([lane.key for lane in lanes])
        self._begun = time.monotonic()
        self._seconds_before = [lane.progress.seconds for lane in lanes]
        self._saved_at = time.monotonic()
        self._pending: collections.deque[tuple[steps.Metrics, Any]] = (
            collections.deque()
        )
        self._signum = 0

    def __enter__(self) -> Loop:
        self._scalars = [
            Scalars(lane.folder, last_step=self.step, tensorboard=self.pace.tensorboard)
            for lane in self.lanes
            if self.hosts.first
        ]
        names = [lane.run.name for lane in self.lanes]
        self._bar = tqdm(
            total=self.pace.epochs * self._epoch_clips,
            initial=self._clips_seen,
            desc=names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1}",
            unit=" clips",
            # Where no one watches, the lines of each epoch are enough.
            disable=None if self.hosts.first else True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        for scalars in self._scalars:
            scalars.close()

    @property
    def _epoch_clips(self) -> int:
        return sum(len(lane.split.train) for lane in self.lanes)

    @property
    def _clips_seen(self) -> int:
        epoch, start = divmod(self.step, self.program.steps_per_epoch)
        seen = start * self.pace.batch_size
        in_epoch = sum(min(seen, len(lane.split.train)) for lane in self.lanes)
        return epoch * self._epoch_clips + in_epoch

    @property
    def _active(self) -> list[tuple[int, Lane]]:
        """Lanes that were not given up, with their numbers."""
        return [(i, lane) for i, lane in enumerate(self.lanes) if lane.diverged is None]

    def run(self) -> None:
        """Trains to the end of all lanes, or until a signal or divergence of all."""
        for parts in self._batches():
            self._advance(parts)
            if not self._active:
                return

    def _batches(self) -> Iterator[tuple[Batch, ...]]:
        """Every lane's next batch, to the end of the training.

        An epoch is opened before the last step of the one before, because opening it
        takes longer than a step of a fast device.
        """
        steps_per_epoch, epochs = self.program.steps_per_epoch, self.pace.epochs
        epoch, start = divmod(self.step, steps_per_epoch)
        streams = self._open(epoch, start) if epoch < epochs else []
        while streams:
            following: list[Iterable[Batch]] = []
            for place, parts in enumerate(zip(*streams, strict=True), start + 1):
                if place == steps_per_epoch and epoch + 1 < epochs:
                    following = self._open(epoch + 1, 0)
                yield parts
            streams, epoch, start = following, epoch + 1, 0

    def _open(self, epoch: int, start: int) -> list[Iterable[Batch]]:
        return [self._read(lane, epoch, start) for lane in self.lanes]

    def _advance(self, parts: Sequence[dict[str, np.ndarray]]) -> None:
        """One step, and what is due after it."""
        self.state, metrics = self.program.train_step(
            self.state, self.program.spread.batch(parts), self._keys
        )
        self.step += 1
        self._pending.append((metrics, self.hosts.largest(self.signals.signum)))
        self._settle(STEPS_AHEAD)
        self._bar.update(sum(int(part["mask"].sum()) for part in parts))
        self._give_up_diverged()
        if self.step % self.program.steps_per_epoch == 0:
            self._settle(0)
            self._end_epoch()
        if self.hosts.count == 1:
            self._signum = self.signals.signum
        if self._signum:
            self._save(wait=True)
            raise Interrupted(self._signum)
        due = time.monotonic() - self._saved_at > self.pace.checkpoint_seconds
        if due or self.step == self.program.num_steps:
            self._save()

    def _settle(self, ahead: int) -> None:
        """Reads the metrics of all steps but the last `ahead`."""
        while len(self._pending) > ahead:
            metrics, signum = self._pending.popleft()
            self._signum = max(self._signum, int(signum))
            for i, lane in self._active:
                lane.progress.add(self.program.spread.part(metrics, i))
        if self._active:
            self._bar.set_postfix(self._active[0][1].progress.means(), refresh=False)

    def _save(self, wait: bool = False) -> None:
        self._settle(0)
        seconds = time.monotonic() - self._begun
        for i, lane in self._active:
            lane.progress.seconds = self._seconds_before[i] + seconds
            if lane.checkpoints is None:
                continue
            # The next step may write into the memory that these arrays are in.
            state = jax.tree.map(np.array, self.program.spread.part(self.state, i))
            lane.checkpoints.save(self.step, state, dataclasses.asdict(lane.progress))
        for _, lane in self._active:
            if wait and lane.checkpoints is not None:
                lane.checkpoints.wait()
        self._saved_at = time.monotonic()

    def _give_up_diverged(self) -> None:
        limit = self.pace.max_skipped_in_a_row
        diverged = [
            lane for _, lane in self._active if lane.progress.skipped_in_a_row >= limit
        ]
        if not diverged:
            return
        self._save()
        for lane in diverged:
            lane.diverged = Diverged(
                f"{lane.run.name} diverged: the loss or a gradient was not finite in "
                f"{lane.progress.skipped_in_a_row} steps in a row up to step "
                f"{self.step}; the last good parameters are in its checkpoint; lower "
                "config.optimizer.learning_rate and use another --workdir"
            )

    def _end_epoch(self) -> None:
        epoch = self.step // self.program.steps_per_epoch
        rate = np.asarray(self.program.learning_rate(self.step - 1)).item()
        every = self.pace.evaluate_every_epochs
        scored = every and (epoch % every == 0 or epoch == self.pace.epochs)
        better = np.zeros(len(self.lanes), bool)
        for i, lane in self._active:
            means = lane.progress.means()
            values = {f"train_{name}": value for name, value in means.items()}
            values["learning_rate"] = rate
            if scored:
                variables = self.program.spread.part(self.state.variables, i)
                if len(lane.split.validation):
                    found = self._score(variables, lane.split.validation)
                    better[i] = lane.progress.is_best(found, self._task)
                    if better[i]:
                        lane.progress.best = {"epoch": epoch, "validation": found}
                    values |= self._named("validation", found)
                values |= self._named("test", self._score(variables, lane.split.test))
            self._report(i, lane, epoch, values)
            lane.progress.next_epoch()
        if better.any():
            self.state = steps.keep_best(
                self.state, self.program.spread.join(list(better))
            )

    def _named(self, part: str, scored: dict[str, Any]) -> dict[str, float]:
        names = (self._task.metric, "loss")
        return {f"{part}_{name}": scored[name] for name in names}

    def _report(self, i: int, lane: Lane, epoch: int, values: dict[str, float]) -> None:
        if not self.hosts.first:
            return
        self._scalars[i].write(self.step, values)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._bar.clear()
        logger.info(
            "%s epoch %d/%d  %s",
            *(lane.run.name, epoch, self.pace.epochs, text),
        )
