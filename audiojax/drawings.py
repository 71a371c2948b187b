"""The pictures of a study: scores against the stage, and heat maps of what changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from audiojax import figures
from audiojax.figures import Spreads

# Panels of the picture, with the names and kinds of their lines.
PANELS = {
    "Frozen up to the stage": {"frozen": "freeze"},
    "Drawn anew from the stage on": {"drawn anew": "fusion"},
    "Cut before the stage": {"cut": "cutoff"},
    "Linear probe of the stage, not trained": {
        "probe, pretrained weights": "probe",
        "probe, random weights": "random_probe",
    },
}
# What correlates the same layers, by its name in `transfer.json`.
MEASURES = {"svcca": "SVCCA", "cca": "mean CCA"}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture of what a study found.

    Attributes:
        name: of its file, without the ending.
        title: what it is called.
        description: what is to be seen.
        figure: the picture.
    """

    name: str
    title: str
    description: str
    figure: Figure

    @property
    def said(self) -> tuple[str, str]:
        """Title and description."""
        return self.title, self.description


def drawings(study: Mapping[str, Any]) -> list[Drawing]:
    """The pictures of a `transfer.json`, as far as it has the numbers."""
    found = []
    if panels := _panels(study):
        found.append(_score_drawing(study, panels))
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in study["similarity"]:
        if "problem" not in row:
            by_name.setdefault(row["name"], []).append(row)
    return found + _similarity_drawings(by_name) if by_name else found


def _similarity_drawings(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[Drawing]:
    """Heat maps of what is compared, each the mean over its folds and seeds."""

    def mean(name: str, measure: str) -> np.ndarray:
        return np.mean([row[measure] for row in rows[name]], axis=0)

    names, (first, *_) = list(rows), next(iter(rows.values()))
    measure = next(name for name in MEASURES if name in first)
    layers, cka = first["layers"], {name: mean(name, "cka") for name in names}
    tables = {
        "linear CKA": np.array([np.diagonal(cka[name]) for name in names]),
        MEASURES[measure]: np.array([mean(name, measure) for name in names]),
        "change of weights": np.array([mean(name, "change") for name in names]),
    }
    return [
        Drawing(
            "similarity",
            "Similarity of the same layers",
            "Before and after training, and after training with two seeds: how alike "
            "features are, 1 for the same, and by what share of their norm weights "
            "changed.",
            figures.heat_maps(tables, names, layers),
        ),
        Drawing(
            "layers",
            "Similarity of all layers, by linear CKA",
            "Rows are layers before training, or with the first seed; columns layers "
            "after it, or with the other seed.",
            figures.heat_maps(cka, layers, layers),
        ),
    ]


def _levels(study: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean and deviation of what has no stage, by its kind."""
    return {
        point["kind"]: (point["scores"]["mean"], point["scores"]["std"])
        for point in study["points"]
        if point["stage"] is None and point["scores"]
    }


def _panels(study: Mapping[str, Any]) -> dict[str, dict[str, Spreads]]:
    """The lines of each panel that has some."""

    def spreads(kind: str) -> dict[str, tuple[float, float]]:
        return {
            point["stage"]: (point["scores"]["mean"], point["scores"]["std"])
            for point in study["points"]
            if point["kind"] == kind and point["scores"]
        }

    panels = {}
    for title, kinds in PANELS.items():
        lines = {name: spreads(kind) for name, kind in kinds.items()}
        if lines := {name: line for name, line in lines.items() if line}:
            panels[title] = lines
    return panels


def _score_drawing(
    study: Mapping[str, Any], panels: Mapping[str, Mapping[str, Spreads]]
) -> Drawing:
    return Drawing(
        "transfer",
        f"{study['metric'].capitalize()} against the stage",
        "A panel for each thing that is done to the network at a stage. Points are the "
        "mean over folds and seeds, bars their standard deviation. The horizontal "
        "lines are the unmodified network, trained from pretrained and from random "
        "weights. The table has the numbers.",
        figures.stage_scores(panels, _levels(study), study["stages"], study["metric"]),
    )
