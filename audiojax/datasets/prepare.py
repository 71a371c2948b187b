"""From a table of sound files to audio, prepared once by TensorFlow Datasets."""

from __future__ import annotations

from audiojax.datasets.recordings import Recordings, Settings
from audiojax.datasets.table import Table


def open_table(table: Table, settings: Settings) -> Recordings:
    """Opens a table's audio, preparing it on the first call.

    Args:
        table: the sound files, their labels and folds.
        settings: the rate wanted, where to store it, what to do with bad files.

    Raises:
        InputError: for sound files that can't be used, all in one.
    """
    raise NotImplementedError
