"""Locks in folders, which name their holders, so that processes share work.

The lock is the file system's own (flock), so it ends with the process that holds it,
however that ends, and no one has to guess from its age whether it is stale. File
systems that machines share must carry such locks between them: NFS, Lustre mounted with
`flock`, GPFS and CephFS do; buckets do not, mounted or not.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from etils import epath

from audiojax.errors import InputError

logger = logging.getLogger(__name__)

NAME = "lock"


def possible(folder: epath.Path | Path) -> bool:
    """Whether a folder can have a lock: not in a bucket."""
    return "://" not in str(folder)


def holder(folder: epath.Path | Path, name: str = NAME) -> str:
    """Who holds a lock in a folder, in words, as far as it is written there."""
    try:
        written = json.loads(Path(folder, name).read_text())
        return "process {pid} on {host} since {since}".format(**written)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextlib.contextmanager
def held(
    folder: epath.Path | Path, name: str = NAME, *, wait: bool = False
) -> Iterator[bool]:
    """Takes a lock in a folder, which is made if it is not there.

    In a bucket there are no locks: the job that writes there must be the only one.
    The lock's file stays, empty. `wait` says whether to wait for another's.

    Yields:
        Whether the lock is ours, until the end of the block.

    Raises:
        InputError: if nothing can be written there, or the file system has no locks.
    """
    if not possible(folder):
        yield True
        return
    path = Path(folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error.strerror}); give another --workdir, or "
            "for prepared data another data_dir"
        ) from error
    with file:
        try:
            taken = _lock(file, path, wait)
        except OSError as error:
            raise InputError(
                f"{path} can't be locked ({error.strerror}); put its folder on a file "
                "system with locks, or on a disk of this machine"
            ) from error
        if not taken:
            yield False
            return
        if path.stat().st_size:
            # Whoever waits for prepared data makes them anew: nothing to attend to.
            level = logging.INFO if wait else logging.WARNING
            logger.log(
                level,
                "%s was left by %s, which did not finish; it is taken over here",
                *(folder if name == NAME else path, holder(folder, name)),
            )
        file.truncate(0)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        ours = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
        file.write(json.dumps(ours))
        file.flush()
        try:
            yield True
        finally:
            file.truncate(0)


def _lock(file: IO[str], path: Path, wait: bool) -> bool:
    """Whether the lock was taken."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        logger.info(
            "waiting for %s, which holds %s", holder(path.parent, path.name), path
        )
        fcntl.flock(file, fcntl.LOCK_EX)
    return True
