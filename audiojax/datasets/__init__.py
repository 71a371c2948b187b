"""Data sets, one a file, and the table of them.

`batches` is not imported here: it brings TensorFlow, which takes seconds.
"""

import functools
import os
from collections.abc import Callable

from audiojax.datasets.arrays import from_arrays
from audiojax.datasets.layouts import (
    audio_csv,
    audio_folder,
    esc50,
    gtzan,
    synthetic,
    urbansound8k,
)
from audiojax.datasets.recordings import Clip, Info, Recordings, Settings
from audiojax.errors import InputError

# TensorFlow, imported later than this, only moves data here. At its start it would
# tell of its arithmetic; warnings and errors still come.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

__all__ = [
    "DATASETS",
    "TABLES",
    "Clip",
    "Info",
    "Recordings",
    "Settings",
    "from_arrays",
    "load",
]

# What reads the layout of those that are sound files.
TABLES: dict[str, Callable[[Settings], Info]] = {
    "esc50": functools.partial(esc50.read, "esc50"),
    "esc10": functools.partial(esc50.read, "esc10"),
    "urbansound8k": urbansound8k.read,
    "gtzan": gtzan.read,
    "audio_folder": audio_folder.read,
    "audio_csv": audio_csv.read,
}


def _load(read: Callable[[Settings], Info], settings: Settings) -> Recordings:
    from audiojax.datasets.store import prepare  # brings TensorFlow Datasets

    return prepare.load(read(settings), settings)


DATASETS: dict[str, Callable[[Settings], Recordings]] = {
    **{name: functools.partial(_load, read) for name, read in TABLES.items()},
    "synthetic": synthetic.load,
}


def load(name: str, settings: Settings) -> Recordings:
    """Opens a data set.

    Args:
        name: one of `DATASETS`.
        settings: where it lies and how it is wanted.

    Raises:
        InputError: for an unknown name, or a source that can't be used.
    """
    if name not in DATASETS:
        raise InputError(
            f"there is no data set {name!r}; the known ones: {', '.join(DATASETS)}"
        )
    return DATASETS[name](settings)
