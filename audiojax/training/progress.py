"""What a run tells of itself while it trains."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from audiojax import files
from audiojax.task import Task
from audiojax.workdir import METRICS


@dataclasses.dataclass
class Progress:
    """Sums over the clips of the epoch so far, kept in the checkpoint.

    Attributes:
        loss_sum: of the cross-entropy, in nats.
        correct: clips whose largest logit was the right one.
        count: clips.
        skipped_in_a_row: updates left out since the last that was made.
        seconds: that the run has taken.
        best: the epoch with the best validation scores so far, from 1, and those
            scores; None without a validation split.
        lines: the scalars of all moments so far, each with its step.
    """

    loss_sum: float = 0.0
    correct: float = 0.0
    count: float = 0.0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    lines: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Adds one step; one that was not finite only counts as skipped."""
        if not metrics["finite"]:
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        self.loss_sum += float(metrics["loss_sum"])
        self.correct += float(metrics["correct"])
        self.count += float(metrics["count"])

    def next_epoch(self) -> None:
        """Begins the sums of the epoch to come."""
        self.loss_sum = self.correct = self.count = 0.0

    def means(self) -> dict[str, float]:
        """Mean loss and accuracy so far; nothing before the first clip."""
        sums = {"loss": self.loss_sum, "accuracy": self.correct}
        return {name: x / self.count for name, x in sums.items()} if self.count else {}

    def is_best(self, scored: Mapping[str, Any], task: Task) -> bool:
        """Whether these validation scores beat all before; of equal ones the first."""
        best = self.best
        return best is None or task.rank(scored) > task.rank(best["validation"])


class Scalars:
    """Writes scalars to `metrics.jsonl` and to TensorBoard's event file."""

    def __init__(self, folder: epath.Path, progress: Progress, *, tensorboard: bool):
        """Opens them in the run's folder, with what the progress holds written before.

        Event files are written if asked for.
        """
        self._path, self._lines = folder / METRICS, progress.lines
        if self._lines or self._path.exists():
            self._write()
        self._writer = None
        if tensorboard:
            # TensorFlow comes with it: seconds and hundreds of megabytes, so late.
            from clu import metric_writers

            self._writer = metric_writers.SummaryWriter(str(folder))

    def write(self) -> None:
        """Writes the progress's last scalars; the file is never half a line."""
        self._write()
        if self._writer is not None:
            scalars = dict(self._lines[-1])
            self._writer.write_scalars(int(scalars.pop("step")), scalars)
            self._writer.flush()

    def _write(self) -> None:
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        files.write_bytes(self._path, text.encode())

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
