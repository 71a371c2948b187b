"""Data sets, one a file, and the table of them.

`batches` is not imported here: it brings TensorFlow, which takes seconds.
"""

import functools
import os
from collections.abc import Callable

from audiojax.datasets import esc50, synthetic
from audiojax.datasets.recordings import Clip, Info, Recordings
from audiojax.errors import InputError

# TensorFlow, imported later than this, only moves data here. At its start it would
# tell of its arithmetic; warnings and errors still come.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

__all__ = ["DATASETS", "Clip", "Info", "Recordings", "load"]

DATASETS: dict[str, Callable[..., Recordings]] = {
    "esc50": functools.partial(esc50.load, "esc50"),
    "esc10": functools.partial(esc50.load, "esc10"),
    "synthetic": synthetic.load,
}


def load(
    name: str,
    *,
    source_dir: str | None,
    data_dir: str | None,
    sample_rate: int,
    seed: int = 0,
) -> Recordings:
    """Opens a data set.

    Args:
        name: one of `DATASETS`.
        source_dir: the folder with the original files, or None to download them.
        data_dir: the folder for prepared data, or None for the default:
            $AUDIOJAX_DATA_DIR or ~/.cache/audiojax.
        sample_rate: of the audio wanted, in Hz.
        seed: of data sets that are made by code.

    Raises:
        InputError: for an unknown name, or a source that can't be used.
    """
    if name not in DATASETS:
        raise InputError(
            f"there is no data set {name!r}; the known ones: {', '.join(DATASETS)}"
        )
    return DATASETS[name](
        source_dir=source_dir, data_dir=data_dir, sample_rate=sample_rate, seed=seed
    )
