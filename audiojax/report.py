"""Results as pictures."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics

from audiojax import files
from audiojax.workdir import Workdir


def write(workdir: epath.PathLike) -> epath.Path:
    """Draws what a finished sweep left; each clip counts once for each seed.

    Returns:
        The picture: `confusion.png`, or `average_precision.png` where a clip may have
        several classes.
    """
    opened = Workdir(workdir)
    found = [opened.predictions(run) for run in opened.runs]
    label = np.concatenate([predictions.label for predictions in found])
    logits = np.concatenate([predictions.logits for predictions in found])
    if opened.task.name == "multi_label":
        path = opened.path / "average_precision.png"
        average_precision(label, logits, opened.classes, path)
    else:
        path = opened.path / "confusion.png"
        confusion_matrix(label, logits.argmax(axis=-1), opened.classes, path)
    return path


def average_precision(
    label: np.ndarray, logits: np.ndarray, classes: Sequence[str], path: epath.PathLike
) -> None:
    """Draws the average precision of each class, from the best to the worst.

    Args:
        label: [N, classes] of 0 and 1.
        logits: [N, classes].
        classes: their names; those without a clip are left out.
        path: where the PNG is written.
    """
    found = {
        classes[int(i)]: metrics.average_precision_score(label[:, i], logits[:, i])
        for i in np.flatnonzero(label.any(axis=0))
    }
    names = sorted(found, key=found.__getitem__)
    figure = Figure(figsize=(6, 1.5 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), [found[name] for name in names])
    axes.set_yticks(range(len(names)), _drawable(names), parse_math=False)
    axes.bar_label(bars, fmt="%.2f", padding=2)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("average precision")
    axes.set_title(f"mAP {np.mean(list(found.values())):.1%} of {len(label)} clips")
    _save(figure, path)


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
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        text, place = str(counts[row, column]), (int(column), int(row))
        axes.text(*place, text, ha="center", va="center", color=color, fontsize=8)
    names = _drawable(classes)
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"accuracy {accuracy:.1%} of {counts.sum()} clips")
    _save(figure, path)


def _drawable(names: Sequence[str]) -> list[str]:
    """Names as a font can draw them, with a mark for each character that it can't.

    Names of folders may hold bytes that are no text, and line ends.
    """
    texts = [os.fsencode(name).decode(errors="replace") for name in names]
    return ["".join(c if c.isprintable() else "\ufffd" for c in t) for t in texts]


def _save(figure: Figure, path: epath.PathLike) -> None:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A box is drawn for what no font here has.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=100)
    files.write_bytes(path, buffer.getvalue())
