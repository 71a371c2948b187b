"""A lock on a folder, which names its holder, so that processes share a sweep.

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

from etils import epath

from audiojax.errors import InputError

logger = logging.getLogger(__name__)

NAME = "lock"


def possible(folder: epath.Path) -> bool:
    """Whether a folder can have a lock: not in a bucket."""
    return "://" not in str(folder)


def _ourselves() -> str:
    return json.dumps(
        {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )


def _describe(text: str) -> str:
    try:
        holder = json.loads(text)
        return "process {pid} on {host} since {since}".format(**holder)
    except (ValueError, KeyError, TypeError):
        return "another process"


def holder(folder: epath.Path) -> str:
    """Who holds the lock of a folder, in words, as far as it is written there."""
    try:
        return _describe(Path(folder, NAME).read_text())
    except OSError:
        return "another process"


@contextlib.contextmanager
def held(folder: epath.Path) -> Iterator[bool]:
    """Takes the lock of a folder if it is free.

    Args:
        folder: made if it is not there. In a bucket there are no locks: the job that
            writes there must be the only one.

    Yields:
        Whether the lock is ours, until the end of the block.

    Raises:
        InputError: if nothing can be written there, or the file system has no locks.
    """
    if not possible(folder):
        yield True
        return
    path = Path(folder, NAME)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error.strerror}); give another --workdir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise InputError(
                f"{path} can't be locked ({error.strerror}); put the workdir on a file "
                "system with locks, or on a disk of this machine"
            ) from error
        file.seek(0)
        if before := file.read():
            logger.warning(
                "%s was left by %s, which did not finish; it is taken over here",
                folder,
                _describe(before),
            )
        file.truncate(0)
        file.write(_ourselves())
        file.flush()
        try:
            yield True
        finally:
            file.truncate(0)
