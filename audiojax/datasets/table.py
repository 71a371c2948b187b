"""What a data set's layout is read into: one row a sound file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiojax.datasets.recordings import Clip, Info


@dataclasses.dataclass(frozen=True)
class Row:
    """One sound file.

    Attributes:
        path: where it lies.
        filename: its name within the data set, unique there.
        labels: class numbers, from 0: one, unless the data set is multi-label.
        fold: the part of the data set it stands in, from 1.
        source: the recording it was cut from; clips of one recording sound alike.
    """

    path: Path
    filename: str
    labels: tuple[int, ...]
    fold: int
    source: str


@dataclasses.dataclass(frozen=True)
class Table:
    """All that is known of a data set before a sound file is opened.

    Attributes:
        name: as in `DATASETS`.
        classes: class names by label.
        rows: by clip number.
        multi_label: whether a clip may have several labels, or none.
        official_folds: whether the folds are the publisher's; False for made ones.
        shared_sources: recordings that the publisher's own folds have on both sides.
        known_broken: file names that are known to be broken as published: left out
            with a warning if they can't be read, whatever `Settings.on_bad_file` says.
        report: what was noticed while the layout was read, in words of JSON.
        description: of the data set, in a sentence.
        homepage: of the data set, an address.
    """

    name: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    multi_label: bool = False
    official_folds: bool = True
    shared_sources: tuple[str, ...] = ()
    known_broken: tuple[str, ...] = ()
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    description: str = ""
    homepage: str = ""

    def info(self, sample_rate: int) -> Info:
        """What is known to who uses the data set, at the rate wanted in Hz."""
        return Info(
            name=self.name,
            classes=self.classes,
            sample_rate=sample_rate,
            clips=tuple(
                Clip(row.filename, row.labels, row.fold, row.source)
                for row in self.rows
            ),
            shared_sources=self.shared_sources,
            multi_label=self.multi_label,
            official_folds=self.official_folds,
            report=self.report,
        )
