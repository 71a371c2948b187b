"""Where prepared data lie, and how processes share that place."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from audiojax.errors import InputError

logger = logging.getLogger(__name__)

# Names the folder of prepared data where the config names none.
VARIABLE = "AUDIOJAX_DATA_DIR"
DEFAULT = "~/.cache/audiojax"


def data_dir(given: str | None) -> Path:
    """The folder for prepared data, made if need be: the one given or the default.

    Raises:
        InputError: if it is not on a disk of this machine or can't be made.
    """
    name = given or os.environ.get(VARIABLE) or DEFAULT
    if "://" in name:
        raise InputError(
            f"data_dir is {name!r}, but prepared data are mapped into memory; give a "
            "folder on a disk of this machine"
        )
    folder = Path(name).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder for prepared data can't be made ({error}); give another "
            f"data_dir, or set ${VARIABLE}"
        ) from error
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time make `path`.

    The others wait, then find it made. The lock is the system's, so it goes with its
    process, however that ends; the empty file beside `path` stays.

    Raises:
        InputError: if nothing can be written beside `path`.
    """
    try:
        file = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise InputError(
            f"prepared data can't be written ({error}); give another data_dir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that makes %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
