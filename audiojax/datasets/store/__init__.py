"""Sound files prepared once: decoded, resampled, stored; and where that lies."""

from __future__ import annotations

import os
from pathlib import Path

from audiojax import files
from audiojax.errors import InputError

# Names the folder of prepared data where the config names none.
VARIABLE = "AUDIOJAX_DATA_DIR"


def data_dir(given: str | None) -> Path:
    """The folder for prepared data, made if need be: the one given or the default.

    Raises:
        InputError: if it is not on a disk of this machine or can't be made.
    """
    name = given or os.environ.get(VARIABLE) or str(files.cache_dir())
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
