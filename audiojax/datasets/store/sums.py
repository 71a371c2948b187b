"""Sums of what is kept on the disk, so that nothing damaged is ever used.

They are sha256: with the processor's own instructions for it, that is no slower than a
checksum. A file has one for each of its parts, which threads compare side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from audiojax import files
from audiojax.datasets import parallel
from audiojax.errors import InputError, listed

# Bytes of a part, where nothing else divides a file, and of what is read at once.
PART_BYTES = 1 << 23
BLOCK = 1 << 20

# The length of a part in bytes, and its sum.
Part = tuple[int, str]


def of(content: bytes) -> Part:
    """The sum of a part that is in memory."""
    return len(content), hashlib.sha256(content).hexdigest()


def below(path: Path) -> set[str]:
    """Names of the files in the folder of the sums `path`, and in folders there.

    Hidden ones are the system's, and no one reads them.
    """
    found = (file for file in path.parent.rglob("*") if file.is_file())
    return {
        str(file.relative_to(path.parent))
        for file in found
        if file != path and not file.name.startswith(".")
    }


def write(path: Path, sums: Mapping[str, Iterable[Part]]) -> None:
    """Writes the sums of files in the same folder, by their names there."""
    files.write_sealed(path, {"files": {name: [*sums[name]] for name in sorted(sums)}})


def write_below(path: Path) -> None:
    """Writes the sums of all files in the folder of `path`."""
    write(path, {name: _parts(path.parent / name) for name in below(path)})


def damage(path: Path, found: Collection[str]) -> str:
    """What is no longer as it was when its sums were written; "" if all is.

    Args:
        path: of the sums.
        found: names of the files that are there.
    """
    try:
        kept = files.read_sealed(path, "")["files"]
        sizes = {name: sum(size for size, _ in kept[name]) for name in kept}
    except FileNotFoundError:
        return f"{path.name}, which holds their sums, is missing"
    except (InputError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{path.name}, which holds their sums, is damaged"
    wrong = [f"{name} is missing" for name in sorted(sizes.keys() - found)]
    wrong += [f"{name} is not one of them" for name in sorted(found - sizes.keys())]
    try:
        for name in sorted(sizes.keys() & found):
            size = (path.parent / name).stat().st_size
            if size != sizes[name]:
                wrong.append(f"{name} has {size} bytes, not {sizes[name]}")
        return listed(wrong) or _changed(path.parent, kept)
    except OSError as error:
        return f"{error.filename} can't be read: {error.strerror}"


def _changed(folder: Path, kept: Mapping[str, Iterable[Part]]) -> str:
    """Which of the files has other bytes than those summed, and where; "" if none."""
    pieces: list[tuple[str, int, int, str]] = []
    for name, parts in kept.items():
        start = 0
        for size, expected in parts:
            pieces.append((name, start, size, expected))
            start += size

    def same(piece: tuple[str, int, int, str]) -> bool:
        name, start, size, expected = piece
        return _part(folder / name, start, size) == (size, expected)

    for piece, fits in zip(pieces, parallel.in_parallel(same, pieces), strict=True):
        if not fits:
            name, start, size, _ = piece
            return f"{name} was changed between bytes {start} and {start + size}"
    return ""


def _parts(path: Path) -> list[Part]:
    starts = range(0, path.stat().st_size, PART_BYTES)
    return list(parallel.in_parallel(lambda at: _part(path, at, PART_BYTES), starts))


def _part(path: Path, start: int, size: int) -> Part:
    """The sum of so many bytes of a file, or of those up to its end."""
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        file.seek(start)
        while left and (block := file.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
    return size - left, digest.hexdigest()
