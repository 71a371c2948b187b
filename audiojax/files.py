"""Files that are either whole or not there, on a disk or in a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from etils import epath

from audiojax.errors import InputError

T = TypeVar("T")

# Of JSON files that tell it; 1 is what told none.
FORMAT = 2
# What tells that a file is not there.
ABSENT = (FileNotFoundError, NotADirectoryError)


class DamagedError(InputError):
    """A file is not what was written; the message says what to do about it."""

    def __init__(self, path: object, what: str, advice: str):
        super().__init__(f"{path} {what}; {advice}")


# What is said of a file that has another sum.
CHANGED = "is damaged (it is not what was written)"


@contextlib.contextmanager
def whole(path: epath.PathLike, *, alone: bool = False) -> Iterator[epath.Path]:
    """A name to write a file or a folder under, which gets its own when it is whole.

    The folder above is made if need be. Where no one else can be writing it, as under
    a lock, the writer is `alone`, and what a killed one left is deleted.

    Yields:
        The name for the time of writing. After an error nothing is left there, and
        what stood at `path` stays.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Else the name is the writer's own, so two never share a half-written file.
    writer = "" if alone else f".{os.getpid()}-{threading.get_ident()}"
    part = path.parent / f".{path.name}{writer}.part"
    try:
        if alone:
            _delete(part)
        yield part
        if "://" not in str(part):
            descriptor = os.open(part, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        part.replace(path)
    except BaseException:
        _delete(part)
        raise


def _delete(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree()
    else:
        path.unlink(missing_ok=True)


def check_writable(path: epath.PathLike) -> None:
    """Finds out early whether a file can be written; what stands there stays.

    Raises:
        InputError: if it can't.
    """
    path = epath.Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f".{path.name}.{os.getpid()}.part"
        part.write_bytes(b"")
        part.unlink()
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error.strerror or error}); give another place"
        ) from None


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes `content`, whole or not at all."""
    with whole(path) as part:
        part.write_bytes(content)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON; NaN is refused, JSON has no such number."""
    text = json.dumps(value, indent=1, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: epath.PathLike) -> Any:
    """Reads what `write_json` wrote."""
    return json.loads(epath.Path(path).read_text())


def write_sealed(path: epath.PathLike, value: Mapping[str, Any]) -> None:
    """Writes an object as JSON, with the number of its format and a sum of it."""
    value = {"format": FORMAT, **value}
    write_json(path, value | {"sha256": _sum(value)})


def read_sealed(
    path: epath.PathLike, advice: str, parse: Callable[[dict[str, Any]], T] = dict
) -> T:
    """Reads what `write_sealed` wrote, and older files, which have no sum.

    `advice` says what to do about a damaged file, and `parse` makes something of the
    object.

    Raises:
        DamagedError: if it is, or can't be parsed.
        InputError: if a newer version of audiojax wrote it.
        FileNotFoundError, NotADirectoryError: if it is not there.
    """
    try:
        value = read_json(path)
        expected = value.pop("sha256", None)
    except (ValueError, AttributeError, TypeError) as error:
        raise DamagedError(path, f"is damaged ({error})", advice) from None
    if not value or expected not in (None, _sum(value)):
        raise DamagedError(path, CHANGED, advice)
    if value.pop("format", 1) > FORMAT:
        raise InputError(
            f"{path} was written by a newer version of audiojax; install that one"
        )
    try:
        return parse(value)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(path, f"is damaged ({error!r})", advice) from None


def _sum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def sha256(path: epath.PathLike) -> str:
    """The sum of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_arrays(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as one `.npz`; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote."""
    with epath.Path(path).open("rb") as file, np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def cache_dir() -> Path:
    """Where all that can be made anew is kept: a folder in $XDG_CACHE_HOME.

    Without the variable, in ~/.cache.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "audiojax"


def size_text(num_bytes: float) -> str:
    """A size for a reader: in GiB, or in MiB below one."""
    in_gib = num_bytes / 2**30
    return f"{in_gib:.2f} GiB" if in_gib >= 1 else f"{num_bytes / 2**20:.1f} MiB"
