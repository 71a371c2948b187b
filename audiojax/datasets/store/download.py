"""Published archives: fetched once, checked, unpacked."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import logging
import shutil
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from audiojax.datasets.store import folders
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
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
    with folders.locked(folder):
        if not folder.exists():
            part = data_dir / f"{archive.name}.zip.part"
            try:
                _download(archive, part)
                _unpack(part, folder)
            except (OSError, http.client.HTTPException) as error:
                raise InputError(
                    f"{archive.name} could not be downloaded ({error}); "
                    f"{_by_hand(archive)}"
                ) from error
            finally:
                part.unlink(missing_ok=True)
    return folder


def _by_hand(archive: Archive) -> str:
    return (
        f"get {archive.url} by other means, unpack it, and give its folder as "
        "source_dir"
    )


def _download(archive: Archive, path: Path) -> None:
    logger.info("downloading %s (%.2f GB)", archive.url, archive.size / 1e9)
    digest = hashlib.sha256()
    bar = tqdm(
        total=archive.size,
        desc=archive.name,
        unit="B",
        unit_scale=True,
        disable=None,
    )
    with (
        bar,
        urllib.request.urlopen(archive.url, timeout=PATIENCE) as response,
        path.open("wb") as file,
    ):
        while block := response.read(BLOCK):
            digest.update(block)
            file.write(block)
            bar.update(len(block))
    if digest.hexdigest() != archive.sha256:
        raise InputError(
            f"{archive.url} is not the file it was: its sha256 is "
            f"{digest.hexdigest()}, {archive.sha256} was expected; "
            f"{_by_hand(archive)} if you trust it"
        )


def _unpack(path: Path, folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(part)
    (inner,) = part.iterdir()
    inner.rename(folder)
    part.rmdir()
