"""Published archives: fetched once, checked, unpacked."""

from __future__ import annotations

import dataclasses
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import pooch
from tqdm import tqdm

from audiojax import files, locks
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

# Seconds without a byte before the connection counts as lost.
PATIENCE = 60


@dataclasses.dataclass(frozen=True)
class Archive:
    """A zip file with one folder in it.

    Attributes:
        name: of the folder that it is unpacked to.
        url: where it is published.
        sha256: of the zip file.
        size: of the zip file, in bytes.
    """

    name: str
    url: str
    sha256: str
    size: int


def fetch(archive: Archive, data_dir: Path) -> Path:
    """The unpacked archive's folder; the first call downloads it.

    Raises:
        InputError: if it can't be downloaded or is not what it was.
    """
    folder = data_dir / archive.name
    with locks.held(data_dir, f"{archive.name}.lock", wait=True):
        if folder.exists():
            return folder
        with files.whole(folder, alone=True) as part:
            part.mkdir()
            _download(archive, part / "archive.zip")
            with zipfile.ZipFile(part / "archive.zip") as content:
                for member in content.infolist():
                    # The archive's only folder becomes this one.
                    _, _, member.filename = member.filename.partition("/")
                    if member.filename:
                        content.extract(member, part)
            (part / "archive.zip").unlink()
    return folder


def _download(archive: Archive, path: os.PathLike[str]) -> None:
    by_hand = (
        f"get {archive.url} by other means, unpack it, and give its folder as "
        "source_dir"
    )
    logger.info("downloading %s (%s)", archive.url, files.size_text(archive.size))
    options = {"total": archive.size, "desc": archive.name, "unit": "B"}
    bar: Any = tqdm(**options, unit_scale=True, disable=None)
    get = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 20, timeout=PATIENCE)
    try:
        get(archive.url, os.fspath(path), None)
    except OSError as error:
        raise InputError(
            f"{archive.name} could not be downloaded ({error}); {by_hand}"
        ) from error
    if (found := pooch.file_hash(path)) != archive.sha256:
        raise InputError(
            f"{archive.url} is not the file it was: its sha256 is {found}, "
            f"{archive.sha256} was expected; {by_hand} if you trust it"
        )
