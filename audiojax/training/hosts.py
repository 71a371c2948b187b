"""Processes that train one model together: who writes, and how they agree."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from audiojax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes that share a run; the first one reads and writes its files.

    Attributes:
        index: this process's number, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reads and writes."""
        return self.index == 0

    def broadcast(self, decide: Callable[[], Any]) -> Any:
        """What `decide`, called in the first process alone, gives: what JSON holds."""
        if self.count == 1:
            return decide()
        text = json.dumps(decide()).encode() if self.first else b""
        size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
        content = np.frombuffer(text.ljust(size), np.uint8)
        received = multihost_utils.broadcast_one_to_all(content)
        return json.loads(np.asarray(received, np.uint8).tobytes())

    def copy(self, tree: Any) -> Any:
        """The first process's arrays; the others give some of like shape and type."""
        if self.count == 1:
            return tree
        return jax.device_get(multihost_utils.broadcast_one_to_all(tree))

    def share(self, values: np.ndarray) -> np.ndarray:
        """This process's part of [N, ...], which `gather` puts together again."""
        return np.array_split(values, self.count)[self.index]

    def gather(self, part: np.ndarray, size: int) -> np.ndarray:
        """All processes' parts of [size, ...], as `share` made them, one by one."""
        if self.count == 1:
            return part
        lengths = [len(x) for x in np.array_split(np.empty(size), self.count)]
        padded = np.zeros((max(lengths), *part.shape[1:]), part.dtype)
        padded[: len(part)] = part
        everything = np.asarray(multihost_utils.process_allgather(padded))
        real = [rows[:n] for rows, n in zip(everything, lengths, strict=True)]
        return np.concatenate(real)

    def largest(self, number: int) -> Any:
        """The largest of all processes' numbers, to be read later.

        Every process gets it at the same call, so that what they do about it they do
        at the same step; the devices compute it in their turn, and no one waits.
        """
        if self.count == 1:
            return number
        return _largest()(np.full(jax.local_device_count(), number, np.int32))


@functools.cache
def _largest() -> Callable[[np.ndarray], jax.Array]:
    return jax.pmap(
        lambda number: lax.pmax(number, "all"),
        axis_name="all",
        out_axes=None,  # pyright: ignore[reportArgumentType]
    )


def everyone() -> Hosts:
    """All processes of this job."""
    return Hosts(jax.process_index(), jax.process_count())


def connect(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the processes of a job, before anything is computed.

    The coordinator is HOST:PORT of the first process; the number of this one is from 0.
    On Cloud TPU and under Slurm what is None is found out.

    Raises:
        InputError: if they don't find each other.
    """
    # It would take SIGTERM from the handlers of this program.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *(coordinator, num_processes, process_id),
            # Where each process has runs of its own, the first may long be done.
            shutdown_timeout_seconds=24 * 3600,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"the processes of this job could not be joined ({error}); on Cloud TPU "
            "and under Slurm give --multihost alone, elsewhere also --coordinator, "
            "--num_processes and --process_id, the same command in every process"
        ) from error
