"""Writes checkpoints, and reads them to go on: by Orbax, sealed with our own sums."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from audiojax import checkpoint
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

# Folders that Orbax gives their names only when they are whole.
UNFINISHED = ".orbax-checkpoint-tmp"
# What Orbax and TensorStore raise where a disk is full, gone or read-only.
WRITE_ERRORS = (OSError, ValueError, RuntimeError)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _reason(error: Exception) -> str:
    """Why something could not be written, in the system's words if it has any."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if number := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(number[1]))
    return str(error).partition("\n")[0][:200]


class Checkpoints:
    """The checkpoints of one run, as `audiojax.checkpoint` describes them.

    Saving returns as soon as the arrays are copied; writing and summing go on behind
    the training. Use as a context manager, so that the last one is finished.
    """

    def __init__(self, directory: epath.PathLike, keep: int = 2):
        """Opens the folder, setting damaged or unfinished checkpoints aside.

        Its path is absolute; it is made if it is not there. Of the newest so many are
        kept, so that a damaged one has another before it.
        """
        self.directory = epath.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._set_aside_damaged()
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "model": ocp.StandardCheckpointHandler(),
                "training": ocp.StandardCheckpointHandler(),
                "metadata": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=False,
                # Made behind the training, folders that can't be are waited for, and
                # only after minutes an error tells.
                async_options=ocp.options.AsyncOptions(
                    create_directories_asynchronously=False
                ),
                # Whoever opens a checkpoint does so alone, also in a job of several.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=jax.process_index(),
                    active_processes={jax.process_index()},
                    barrier_sync_key_prefix=f"process{jax.process_index()}",
                ),
            ),
        )
        self._sealer = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._sealing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            # It raises again what went wrong with a save, of which `wait` tells.
            with contextlib.suppress(*WRITE_ERRORS):
                self._manager.close()

    def _set_aside_damaged(self) -> None:
        for path in sorted(self.directory.iterdir()):
            if path.name.endswith(UNFINISHED):
                logger.info("removing %s, which was not finished", path)
                path.rmtree()
                continue
            if not path.is_dir() or (problem := checkpoint.fault(path)) is None:
                continue
            aside = self.directory.parent / "damaged" / path.name
            if aside.exists():
                aside.rmtree()
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
            logger.warning(
                "checkpoint %s can't be used (%s); it was moved to %s and the one "
                "before it is taken",
                *(path, problem, aside),
            )

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, None without one."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Starts to save a `TrainState` and, as JSON, what else belongs to the moment.

        Raises:
            InputError: if the one before could not be written, or this one not begun.
        """
        self.wait()
        items = ocp.args.Composite(
            metadata=ocp.args.JsonSave(metadata),
            **{name: ocp.args.StandardSave(x) for name, x in _items(state).items()},
        )
        with self._writing(step):
            self._manager.save(step, args=items)
        self._sealing = self._sealer.submit(self._seal, step)

    def _seal(self, step: int) -> None:
        with self._writing(step):
            self._manager.wait_until_finished()
            checkpoint.seal(self.directory / str(step))

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        try:
            yield
        except WRITE_ERRORS as error:
            whole, reason = self._newest_whole(), _reason(error)
            full = reason in map(os.strerror, DISK_FULL)
            mend = "make room there" if full else "make that folder writable"
            raise InputError(
                f"checkpoint {step} can't be written to {self.directory} "
                f"({reason}); {mend} and type the same command again, "
                + (
                    "which starts anew: nothing is saved yet"
                    if whole is None
                    else f"which goes on from checkpoint {whole}: that is whole"
                )
            ) from error

    def _newest_whole(self) -> str | None:
        """The step of the newest checkpoint that stays after one has failed."""
        with contextlib.suppress(OSError):
            for path in checkpoint.step_dirs(self.directory):
                if checkpoint.fault(path) is None:
                    return path.name
        return None

    def wait(self) -> None:
        """Waits until the last save is whole on disk.

        Raises:
            InputError: if it could not be written; those before it stay.
        """
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """Reads state and metadata of the newest checkpoint onto the first device.

        The state must have the names, shapes and types of the `TrainState` given.

        Raises:
            InputError: without a checkpoint, or if its tree or format is another one.
        """
        step = self.latest_step()
        if step is None:
            raise InputError(f"{self.directory} holds no whole checkpoint")
        step_dir = self.directory / str(step)
        if checkpoint.format_of(step_dir) == checkpoint.OLD_FORMAT:
            raise InputError(
                f"{step_dir} was written by an earlier version of audiojax: it can be "
                "evaluated, but its training can't go on; train in another --workdir"
            )
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        items = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            _items(like),
        )
        saved = self._manager.item_metadata(step)
        for name, expected in items.items():  # Orbax casts a wrong type silently
            found = getattr(saved[name], "tree", saved[name])
            checkpoint.check_tree(step_dir, found, expected)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                metadata=ocp.args.JsonRestore(),
                **{name: ocp.args.StandardRestore(x) for name, x in items.items()},
            ),
        )
        state = like.replace(**restored["model"], **restored["training"])
        return state, restored["metadata"]


def _items(state: Any) -> dict[str, dict[str, Any]]:
    """The state in the two items of a checkpoint, by the names of its fields."""
    fields = {x.name: getattr(state, x.name) for x in dataclasses.fields(state)}
    # None are not written, so that what was saved before there were any fits.
    if fields.get("ema") is None:
        fields.pop("ema", None)
    model = {name: fields.pop(name) for name in checkpoint.MODEL if name in fields}
    return {"model": model, "training": fields}
