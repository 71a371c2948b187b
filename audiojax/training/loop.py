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
from tqdm import tqdm

from audiojax.classifier import Variables
from audiojax.errors import InputError, Interrupted
from audiojax.task import Task
from audiojax.training import steps
from audiojax.training.feed import Batch
from audiojax.training.hosts import Hosts
from audiojax.training.program import Program
from audiojax.training.progress import Scalars
from audiojax.training.runs import ActiveRun, Diverged
from audiojax.training.signals import StopSignals

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
        least = {
            "epochs": 1,
            "batch_size": 1,
            "evaluate_every_epochs": 0,
            "checkpoint_seconds": 0,
            "max_skipped_in_a_row": 1,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(
                    f"config.{name} is {getattr(self, name)}; give at least {smallest}"
                )


class Loop:
    """The steps of runs that train together; a context, which closes its files."""

    def __init__(
        self,
        program: Program,
        runs: list[ActiveRun],
        *,
        settings: LoopSettings,
        hosts: Hosts,
        signals: StopSignals,
        read: Callable[[ActiveRun, int, int], Iterable[Batch]],
        score: Callable[[Variables, np.ndarray], dict[str, Any]],
        task: Task,
    ):
        """Puts the runs' states on their devices.

        Args:
            program: made for as many.
            runs: of the same step.
            settings: how long, and what how often.
            hosts: the processes that share each run.
            signals: asked after every step.
            read: run, epoch, first batch -> this process's rows of the batches.
            score: variables, clip numbers -> scores.
            task: that tells better scores from worse.
        """
        self.program, self.runs, self.settings = program, runs, settings
        self.hosts, self.signals = hosts, signals
        self._read, self._score = read, score
        self._task = task
        self.step = runs[0].step
        self.state = program.spread.join([active.state for active in runs])
        self._keys = program.spread.join([active.key for active in runs])
        self._begun = time.monotonic()
        self._seconds_before = [active.progress.seconds for active in runs]
        self._saved_at = time.monotonic()
        self._pending: collections.deque[tuple[steps.Metrics, Any]] = (
            collections.deque()
        )
        self._signum = 0

    def __enter__(self) -> Loop:
        self._scalars = [
            Scalars(
                active.folder,
                last_step=self.step,
                tensorboard=self.settings.tensorboard,
            )
            for active in self.runs
            if self.hosts.first
        ]
        names = [active.run.name for active in self.runs]
        self._bar = tqdm(
            total=self.settings.epochs * self._epoch_clips,
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
        return sum(len(active.split.train) for active in self.runs)

    @property
    def _clips_seen(self) -> int:
        epoch, start = divmod(self.step, self.program.steps_per_epoch)
        seen = start * self.settings.batch_size
        in_epoch = sum(min(seen, len(active.split.train)) for active in self.runs)
        return epoch * self._epoch_clips + in_epoch

    @property
    def _training(self) -> list[tuple[int, ActiveRun]]:
        """Runs that were not given up, with their numbers."""
        return [(i, run) for i, run in enumerate(self.runs) if run.diverged is None]

    def run(self) -> None:
        """Trains to the end of all runs, or until a signal or divergence of all."""
        for parts in self._batches():
            self._advance(parts)
            if not self._training:
                return

    def _batches(self) -> Iterator[tuple[Batch, ...]]:
        """Every active's next batch, to the end of the training.

        An epoch is opened before the last step of the one before, because opening it
        takes longer than a step of a fast device.
        """
        steps_per_epoch, epochs = self.program.steps_per_epoch, self.settings.epochs
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
        return [self._read(active, epoch, start) for active in self.runs]

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
        due = time.monotonic() - self._saved_at > self.settings.checkpoint_seconds
        if due or self.step == self.program.num_steps:
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
            if active.checkpoints is None:
                continue
            # The next step may write into the memory that these arrays are in.
            state = jax.tree.map(np.array, self.program.spread.part(self.state, i))
            active.checkpoints.save(
                self.step, state, dataclasses.asdict(active.progress)
            )
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
        if not diverged:
            return
        self._save()
        for active in diverged:
            active.diverged = Diverged(
                active.run,
                f"{active.run.name} diverged: the loss or a gradient was not finite in "
                f"{active.progress.skipped_in_a_row} steps in a row up to step "
                f"{self.step}; the last good parameters are in its checkpoint; lower "
                "config.optimizer.learning_rate and use another --workdir",
            )

    def _end_epoch(self) -> None:
        epoch = self.step // self.program.steps_per_epoch
        rate = np.asarray(self.program.learning_rate(self.step - 1)).item()
        every = self.settings.evaluate_every_epochs
        scored = every and (epoch % every == 0 or epoch == self.settings.epochs)
        better = np.zeros(len(self.runs), bool)
        for i, active in self._training:
            means = active.progress.means()
            values = {f"train_{name}": value for name, value in means.items()}
            values["learning_rate"] = rate
            if scored:
                variables = self.program.spread.part(self.state.variables, i)
                if len(active.split.validation):
                    found = self._score(variables, active.split.validation)
                    better[i] = active.progress.is_best(found, self._task)
                    if better[i]:
                        active.progress.best = {"epoch": epoch, "validation": found}
                    values |= self._named("validation", found)
                values |= self._named("test", self._score(variables, active.split.test))
            self._report(i, active, epoch, values)
            active.progress.next_epoch()
        if better.any():
            self.state = steps.keep_best(
                self.state, self.program.spread.join(list(better))
            )

    def _named(self, part: str, scored: dict[str, Any]) -> dict[str, float]:
        names = (self._task.metric, "loss")
        return {f"{part}_{name}": scored[name] for name in names}

    def _report(
        self, i: int, active: ActiveRun, epoch: int, values: dict[str, float]
    ) -> None:
        if not self.hosts.first:
            return
        self._scalars[i].write(self.step, values)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._bar.clear()
        logger.info(
            "%s epoch %d/%d  %s",
            *(active.run.name, epoch, self.settings.epochs, text),
        )
