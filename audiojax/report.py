"""Results as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics

from audiojax import files


def write(workdir: epath.PathLike) -> None:
    """Draws `confusion.png` from what a finished sweep left in its workdir.

    Args:
        workdir: holds `results.json`, and `predictions.npz` for each run in it; with
            several seeds, each clip counts once for each.
    """
    workdir = epath.Path(workdir)
    results = files.read_json(workdir / "results.json")
    predictions = [
        files.read_arrays(workdir / run["name"] / "predictions.npz")
        for run in results["runs"]
    ]
    confusion_matrix(
        np.concatenate([p["label"] for p in predictions]),
        np.concatenate([p["logits"].argmax(axis=-1) for p in predictions]),
        results["classes"],
        workdir / "confusion.png",
    )


def confusion_matrix(
    label: np.ndarray,
    predicted: np.ndarray,
    classes: Sequence[str],
    path: epath.PathLike,
) -> None:
    """Draws how often each class was taken for each.

    Args:
        label: [N], true class numbers.
        predicted: [N], class numbers given.
        classes: their names.
        path: where the PNG is written.
    """
    counts = metrics.confusion_matrix(label, predicted, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 3 + 0.35 * len(classes)
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = str(counts[row, column])
        axes.text(
            int(column),
            int(row),
            text,
            ha="center",
            va="center",
            color=colour,
            fontsize=8,
        )
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"accuracy {accuracy:.1%} of {counts.sum()} clips")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    files.write_bytes(path, buffer.getvalue())
