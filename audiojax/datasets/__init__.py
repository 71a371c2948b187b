"""Data sets, one a file, and the table of them.

`batches` is not imported here: it brings TensorFlow, which takes seconds.
"""

import functools
import os
from collections.abc import Callable

from audiojax.datasets import esc50, synthetic
from audiojax.datasets.recordings import Clip, Info, Recordings, Settings
from audiojax.errors import InputError

# TensorFlow, imported later than this, only moves data here. At its start it would
# tell of its arithmetic; warnings and errors still come.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

__all__ = ["DATASETS", "Clip", "Info", "Recordings", "Settings", "load"]

DATASETS: dict[str, Callable[[Settings], Recordings]] = {
    "esc50": functools.partial(esc50.load, "esc50"),
    "esc10": functools.partial(esc50.load, "esc10"),
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
