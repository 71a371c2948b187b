"""What is compiled, and how runs are laid over devices."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from audiojax.augment import Changes
from audiojax.classifier import Classifier
from audiojax.errors import InputError
from audiojax.training import optimizer, steps

logger = logging.getLogger(__name__)

# Compiled programs kept. On CPUs each takes thousands of memory maps, of which a
# process may have 65530: a dozen of a large network would end it.
MOST_PROGRAMS = 4


def check_shares(batch_size: int, accumulate: int, processes: int) -> None:
    """Checks that a batch can be split into equal parts.

    They are so many one after the other, and each is shared by all devices of the
    processes if those are several.

    Raises:
        InputError: if it can't.
    """
    if accumulate < 1 or batch_size % accumulate:
        raise InputError(
            f"config.accumulate is {accumulate}, and config.batch_size {batch_size} "
            "can't be split into so many equal parts; give a number that divides it"
        )
    devices = jax.device_count()
    if processes > 1 and batch_size % (devices * accumulate):
        raise InputError(
            f"config.batch_size is {batch_size}, which {devices} devices of "
            f"{processes} processes can't share equally, each in "
            f"config.accumulate={accumulate} parts; give a multiple of "
            f"{devices * accumulate}"
        )


def batch_devices(num_rows: int, devices: Sequence[Any]) -> list[Any]:
    """As many of the devices as can share a batch, or each of its parts, equally."""
    count = max(n for n in range(1, len(devices) + 1) if num_rows % n == 0)
    if count < len(devices):
        logger.warning(
            "%d clips at once can be shared by %d of the %d devices; the others idle",
            *(num_rows, count, len(devices)),
        )
    return list(devices[:count])


class DataParallel:
    """One run at a time, over all devices of all processes that share it.

    Attributes:
        axis_name: the axis that shares a batch.
    """

    axis_name = steps.AXIS

    def __init__(self, devices: Sequence[Any], everywhere: bool = False):
        """Takes these devices of this process, and everywhere all of all others."""
        self._num_devices = len(devices)
        self._mapped = None if everywhere else devices

    def compiled(self, step: Callable) -> Callable[..., Any]:
        """The training step for what the methods below give."""
        return steps.data_parallel(step, self._mapped)

    def join(self, trees: Sequence[Any]) -> Any:
        """States, or keys, of the runs that train side by side: here of one."""
        (tree,) = trees
        return tree

    def part(self, tree: Any, _i: int) -> Any:
        """Of joined states or metrics those of run `i`: here of the only one."""
        return tree

    def batch(self, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
        """The next batch of every run: here of one, a share for each device."""
        (batch,) = batches
        return steps.shard(batch, self._num_devices)


class SeedParallel:
    """As many runs side by side as there are devices, which never speak.

    Attributes and methods are those of `DataParallel`.
    """

    axis_name = None

    def __init__(self, devices: Sequence[Any]):
        self._devices = devices

    def compiled(self, step: Callable) -> Callable[..., Any]:
        """See `DataParallel`."""
        return steps.seed_parallel(step, self._devices)

    def join(self, trees: Sequence[Any]) -> Any:
        """States, or keys, with a leading axis of runs."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def part(self, tree: Any, i: int) -> Any:
        """Of joined states or metrics those of run `i`, read from its device."""
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(i))[0], tree)

    def batch(self, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
        """The next batch of every run, one a device."""
        return {name: np.stack([b[name] for b in batches]) for name in batches[0]}


Spread = DataParallel | SeedParallel


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled for a number of runs side by side and of steps in an epoch.

    Attributes:
        spread: how the runs are laid over the devices.
        steps_per_epoch: batches of an epoch.
        learning_rate: by step.
        train_step: states, batches, keys -> states, metrics, joined by `spread`.
    """

    spread: Spread
    steps_per_epoch: int
    learning_rate: optax.Schedule
    train_step: Any


@dataclasses.dataclass(frozen=True)
class Programs:
    """The programs of a training, each compiled once; the last few are kept.

    Attributes:
        classifier: what is trained.
        recipe: how.
        changes: what is done to each batch.
        trainable: names of the stages that train.
        epochs: in all.
        accumulate: in how many parts a device works its rows of a batch in.
        spread: for a number of runs side by side, how they are laid over devices.
        kept: by numbers of runs and of steps in an epoch.
    """

    classifier: Classifier
    recipe: optimizer.Recipe
    changes: Changes
    trainable: Collection[str]
    epochs: int
    accumulate: int
    spread: Callable[[int], Spread]
    kept: dict[tuple[int, int], Program] = dataclasses.field(default_factory=dict)

    def get(self, num_runs: int, steps_per_epoch: int) -> Program:
        """The program for a number of runs side by side and of steps in an epoch."""
        key = num_runs, steps_per_epoch
        if key in self.kept:
            return self.kept[key]
        if len(self.kept) == MOST_PROGRAMS:
            self.kept.clear()
            jax.clear_caches()
        spread, schedule = self.spread(num_runs), (steps_per_epoch, self.epochs)
        step = steps.make_train_step(
            self.classifier,
            optimizer.create(self.recipe, *schedule, self.classifier.network),
            spread.axis_name,
            self.changes,
            self.trainable,
            self.recipe.label_smoothing,
            self.recipe.ema_decay,
            self.accumulate,
        )
        rate = optimizer.learning_rate(self.recipe, *schedule)
        self.kept[key] = Program(spread, steps_per_epoch, rate, spread.compiled(step))
        return self.kept[key]
