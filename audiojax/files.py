"""Files that are either whole or not there, on a disk or in a bucket."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes `content` under another name, then renames it to `path`."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is the writer's own, so two writers never share a half-written file.
    part = path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}.part"
    try:
        with part.open("wb") as file:
            file.write(content)
            if isinstance(file, io.BufferedWriter):
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON; NaN is refused, JSON has no such number."""
    text = json.dumps(value, indent=1, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: epath.PathLike) -> Any:
    """Reads what `write_json` wrote."""
    return json.loads(epath.Path(path).read_text())


def write_arrays(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as one `.npz`; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote."""
    with epath.Path(path).open("rb") as file, np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}
