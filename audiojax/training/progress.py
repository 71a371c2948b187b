"""What a run tells of itself while it trains."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from audiojax import files
from audiojax.errors import InputError
from audiojax.task import Task


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
    """

    loss_sum: float = 0.0
    correct: float = 0.0
    count: float = 0.0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    best: dict[str, Any] | None = None

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
    """Appends scalars to `metrics.jsonl` and to TensorBoard's event file."""

    def __init__(self, run_dir: epath.Path, *, last_step: int, tensorboard: bool):
        """Opens them in the run's folder to go on after `last_step`.

        What was written later is dropped. Event files are written if asked for.
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
