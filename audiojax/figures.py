"""Results as pictures: PNG files, and SVG to stand in a page."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from etils import epath
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn import metrics

from audiojax import files
from audiojax.calibration import Reliability

# Both are told apart on white and on black, and by the color-blind.
BLUE, ORANGE = "#2b6cc4", "#c2600f"
LOOKS = {"training": (ORANGE, "--"), "test": (BLUE, "-")}
# Black that follows the page's own color of text.
INK = "#010101"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "audiojax",  # the same bytes for the same numbers
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

# A run's steps and values.
Curve = tuple[Sequence[float], Sequence[float]]
# Mean and deviation by stage.
Spreads = Mapping[str, tuple[float, float]]


def average_precision(found: Mapping[str, float], counted: str) -> Figure:
    """Draws the average precision of each class, from the best to the worst.

    Args:
        found: of each class that occurs.
        counted: what it was found in, such as "80 clips".
    """
    names = sorted(found, key=found.__getitem__)
    figure, axes = _blank(6, 1.5 + 0.3 * len(names))
    bars = axes.barh(range(len(names)), [found[name] for name in names], color=BLUE)
    axes.set_yticks(range(len(names)), drawable(names), parse_math=False)
    axes.bar_label(bars, fmt="%.2f", padding=2)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("average precision")
    axes.set_title(f"mAP {np.mean(list(found.values())):.1%} of {counted}")
    return figure


def confusion_matrix(
    label: np.ndarray, predicted: np.ndarray, classes: Sequence[str], counted: str
) -> Figure:
    """Draws how often each class was taken for each.

    Args:
        label: [N], true class numbers.
        predicted: [N], class numbers given.
        classes: their names.
        counted: what the numbers count, such as "80 clips".
    """
    counts = metrics.confusion_matrix(label, predicted, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 3 + 0.35 * len(classes)
    figure, axes = _blank(size, size)
    for row, column in zip(*np.nonzero(counts), strict=True):
        share, place = shares[row, column], (int(column), int(row))
        # Nothing between, where neither white nor black could be read on it.
        depth = 0.8 + 0.2 * share if share > 0.5 else 0.1 + 0.5 * share
        corner = (place[0] - 0.5, place[1] - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, color=BLUE, alpha=depth, lw=0))
        axes.text(
            *place,
            str(counts[row, column]),
            ha="center",
            va="center",
            color="white" if share > 0.5 else INK,
            fontsize=8,
        )
    names = drawable(classes)
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"accuracy {accuracy:.1%}\nNumbers count {counted}", fontsize=10)
    return figure


def learning_curves(
    curves: Mapping[str, Mapping[int, Sequence[Curve]]], name: str, *, share: bool
) -> Figure:
    """Draws a score over the steps: a thin line a run, and each fold's mean.

    Args:
        curves: of "training" and "test" or one of them, of each fold its runs.
        name: of the score.
        share: whether it lies between 0 and 1.
    """
    figure, axes = _blank(5, 3.4)
    for part, folds in curves.items():
        color, line = LOOKS[part]
        said: str | None = part
        for runs in folds.values():
            for steps, values in runs:
                axes.plot(steps, values, line, color=color, lw=0.6, alpha=0.5)
            steps = sorted(set.intersection(*(set(run[0]) for run in runs)))
            tables = [dict(zip(*run, strict=True)) for run in runs]
            mean = [float(np.mean([t[step] for t in tables])) for step in steps]
            axes.plot(steps, mean, line, color=color, lw=1.8, label=said)
            if len(steps) == 1:  # one point draws no line
                axes.plot(steps, mean, "o", color=color, ms=4)
            said = None
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    if share:
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)
    return figure


def reliability(before: Reliability, after: Reliability | None) -> Figure:
    """Draws the share that is right over the probability, and how many there are."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5, 4.6), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], ":", color=INK, lw=1, label="as it should be")
    drawn = [(before, BLUE, "o-", "as trained")]
    if after is not None:
        drawn.append((after, ORANGE, "s--", "with temperature"))
    for bins, color, line, said in drawn:
        some = bins.count > 0
        places = (bins.confidence[some], bins.accuracy[some])
        axes.plot(*places, line, color=color, ms=5, lw=1.6, label=said)
    axes.set_ylabel("share that is right")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, loc="upper left")
    width = np.diff(before.edges) * 0.9
    middles = (before.edges[1:] + before.edges[:-1]) / 2
    below.bar(middles, before.count, width, color=BLUE)
    below.set_xlim(0, 1)
    below.set_xlabel("probability given")
    below.set_ylabel("count")
    return figure


def stage_scores(
    panels: Mapping[str, Mapping[str, Spreads]],
    levels: Mapping[str, tuple[float, float]],
    stages: Sequence[str],
    metric: str,
) -> Figure:
    """Draws a score against the stage: a panel for each thing done to it, two a row.

    Args:
        panels: by their titles, the lines of each: of some stages, mean and deviation.
            The first line of a panel is drawn through, the second dashed.
        levels: mean and deviation of what has no stage, a horizontal line in each.
        stages: all of them, in the network's order.
        metric: name of the score, a share of 1.
    """
    panel, margin = (2 + 0.4 * len(stages), 2.6), (0.0, 0.8)
    figure, grid = _grid(len(panels), 2, panel, margin, sharex=True)
    found = list(grid.flat)[: len(panels)]
    for axes, (title, lines) in zip(found, panels.items(), strict=True):
        looks = zip(levels.items(), ((INK, "--"), (ORANGE, ":")), strict=False)
        for (name, (mean, deviation)), (color, look) in looks:
            axes.axhline(mean, color=color, ls=look, lw=1.2, label=name)
            axes.axhspan(mean - deviation, mean + deviation, color=color, alpha=0.08)
        looks = zip(lines.items(), ((BLUE, "o-"), (ORANGE, "s--")), strict=False)
        for (name, spreads), (color, look) in looks:
            chosen = [stage for stage in stages if stage in spreads]
            places = [stages.index(stage) for stage in chosen]
            means, deviations = zip(*(spreads[x] for x in chosen), strict=True)
            axes.errorbar(
                places, means, deviations, fmt=look, color=color, capsize=3, label=name
            )
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel(metric)
    for axes in found[-grid.shape[1] :]:
        axes.set_xticks(range(len(stages)), drawable(stages), rotation=45, ha="right")
        axes.tick_params(labelbottom=True)
        axes.set_xlim(-0.5, len(stages) - 0.5)
    return figure


def heat_maps(
    maps: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """Draws tables of numbers from 0 to 1, at most three a row, larger ones stronger.

    Args:
        maps: by their titles, [rows, columns]; NaN where there is no number.
        rows: what is on the left.
        columns: what is below.
    """
    names = drawable(columns)
    panel, margin = (1 + 0.42 * len(columns), 2.3 + 0.42 * len(rows)), (1.2, 0.0)
    figure, grid = _grid(len(maps), 3, panel, margin)
    for axes, (title, values) in zip(grid.flat, maps.items(), strict=False):
        for (row, column), value in np.ndenumerate(values):
            if np.isnan(value):
                continue
            depth = 0.04 + 0.96 * min(max(float(value), 0.0), 1.0)
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, color=BLUE, alpha=depth, lw=0))
            axes.text(
                column,
                row,
                f"{value:.2f}".removeprefix("0"),
                ha="center",
                va="center",
                color="white" if depth > 0.9 else INK,  # what can be read on it
                fontsize=7,
            )
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(rows)), drawable(rows), fontsize=8)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_aspect("equal")
    return figure


def drawable(names: Sequence[str]) -> list[str]:
    """Names as a font can draw them, with a mark for each character that it can't.

    Names of folders may hold bytes that are no text, and line ends.
    """
    texts = [os.fsencode(name).decode(errors="replace") for name in names]
    return ["".join(c if c.isprintable() else "\ufffd" for c in t) for t in texts]


def _grid(
    count: int,
    most: int,
    panel: tuple[float, float],
    margin: tuple[float, float],
    *,
    sharex: bool = False,
) -> tuple[Figure, np.ndarray]:
    """A figure of `count` panels, at most so many a row, and their axes [down, across].

    Sizes are widths and heights in inches; what is left of the last row stays blank.
    """
    down = math.ceil(count / most)
    across = math.ceil(count / down)
    size = margin[0] + panel[0] * across, margin[1] + panel[1] * down
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, sharex=sharex, sharey=True, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, grid


def _blank(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def save_png(figure: Figure, path: epath.PathLike) -> None:
    """Writes a figure as a PNG."""
    FigureCanvasAgg(figure)
    files.write_bytes(path, _rendered(figure, "png", dpi=100))


def _rendered(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), mpl.rc_context(STYLE):
        # A box is drawn for what no font here has.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """A figure as an element of a page.

    Args:
        figure: drawn by a function of this module.
        name: what its ids begin with; another for each figure of a page.
        title: what a screen reader calls it.
        description: what is to be seen, in a sentence or two.
    """
    FigureCanvasSVG(figure)
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    options: dict[str, Any] = {"transparent": True, "metadata": nothing}
    text = _rendered(figure, "svg", **options).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    for before in ('id="', "url(#", 'href="#'):
        text = re.sub(rf"(?<![\w-]){re.escape(before)}", f"{before}{name}-", text)
    text = text.replace(INK, "currentColor")
    _, end = text.split(">", 1)
    width, height = figure.get_size_inches() * 72
    head = Markup(
        '<svg viewBox="0 0 {w:g} {h:g}" width="{px:.0f}" role="img" '
        'aria-labelledby="{name}-title {name}-desc" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
        '<title id="{name}-title">{title}</title>'
        '<desc id="{name}-desc">{description}</desc>'
    ).format(
        w=width,
        h=height,
        px=width * 4 / 3,
        name=name,
        title=escape(title),
        description=escape(description),
    )
    return head + Markup(end)
