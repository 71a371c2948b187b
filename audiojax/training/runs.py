"""What one training is, while it is under way, and where it was given up."""

from __future__ import annotations

import dataclasses

import jax
from etils import epath

from audiojax.datasets.parts import Split
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.progress import Progress
from audiojax.training.steps import TrainState
from audiojax.workdir import Run


def keys(run: Run) -> jax.Array:
    """Two keys: of what is drawn at the beginning, and of the steps.

    The order of the clips has a stream of its own.
    """
    return jax.random.split(jax.random.key(run.seed))


@dataclasses.dataclass(frozen=True)
class Diverged:
    """A run whose loss or gradient was not finite in too many steps in a row.

    Attributes:
        run: which.
        message: what was found and what to do.
    """

    run: Run
    message: str


@dataclasses.dataclass
class ActiveRun:
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
    state: TrainState
    progress: Progress
    checkpoints: Checkpoints | None
    diverged: Diverged | None = None

    @property
    def step(self) -> int:
        """Batches seen at the beginning."""
        return int(self.state.step)
