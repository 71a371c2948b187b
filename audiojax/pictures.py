"""Log-mel images and maps of them as pictures, in seconds and hertz."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.image
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from audiojax.audible import bands
from audiojax.features import LogMel
from audiojax.figures import drawable, save_png

# Both can be read by the color-blind.
LEVELS, SIGNED = "cividis", "PuOr_r"
ORANGE = np.array([1.0, 0.55, 0.0])
HERTZ = (200, 500, 1000, 2000, 5000, 10000, 20000)
# The share of a map's pixels that its colors tell apart; the few others are outliers.
SHOWN = 0.995


class Row(NamedTuple):
    """A row of a picture.

    Attributes:
        name: of what is shown.
        image: [mel, frames], the log-mel.
        attribution: [mel, frames].
        seconds: that both cover.
    """

    name: str
    image: np.ndarray
    attribution: np.ndarray
    seconds: float


def side_by_side(
    rows: Sequence[Row],
    title: str,
    log_mel: LogMel,
    path: epath.PathLike,
) -> None:
    """Draws log-mels, and at the right of each its attribution.

    Args:
        rows: from above.
        title: above all.
        log_mel: how the images were made.
        path: where the PNG is written.
    """
    figure = Figure(figsize=(11, 0.8 + 2.8 * len(rows)), layout="constrained")
    figure.suptitle(drawable([title])[0], parse_math=False)
    all_axes = figure.subplots(len(rows), 2, squeeze=False, sharey=True)
    for row, axes in zip(rows, all_axes, strict=True):
        end = float(np.quantile(np.abs(row.attribution), SHOWN)) or 1.0
        drawn = [
            (row.image, "log-mel", "log power", {"cmap": LEVELS}),
            (
                row.attribution,
                "attribution",
                "against | for",
                {"cmap": SIGNED, "vmin": -end, "vmax": end},
            ),
        ]
        for ax, (values, what, label, colors) in zip(axes, drawn, strict=True):
            _draw(ax, values, row.seconds, log_mel, colors)
            ax.set_title(
                drawable([f"{row.name}: {what}"])[0], parse_math=False, fontsize=9
            )
            figure.colorbar(ax.images[0], ax=ax, label=label)
        axes[0].set_ylabel("Hz")
    for ax in all_axes[-1]:
        ax.set_xlabel("seconds")
    save_png(figure, path)


def plain(image: np.ndarray) -> bytes:
    """A log-mel [mel, frames] as a PNG, a point a pixel, low tones below."""
    return _png(image, cmap="magma")


def overlay(image: np.ndarray, attribution: np.ndarray) -> bytes:
    """The same in gray, and over it in orange what speaks for the class.

    Args:
        image: [mel, frames].
        attribution: [mel, frames]; what is negative is not shown.
    """
    gray = (image - image.min()) / (np.ptp(image) or 1)
    positive = np.maximum(attribution, 0)
    share = 0.7 * np.clip(positive / (np.quantile(positive, SHOWN) or 1), 0, 1)
    mixed = ((1 - share) * gray)[..., None] + share[..., None] * ORANGE
    return _png(np.clip(mixed, 0, 1))


def _png(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, origin="lower", format="png", **options)
    return buffer.getvalue()


def _draw(
    ax: Any,
    values: np.ndarray,
    seconds: float,
    log_mel: LogMel,
    colors: dict[str, Any],
) -> None:
    extent = (0, seconds, -0.5, len(values) - 0.5)
    ax.imshow(
        values,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=extent,
        **colors,
    )
    ticks = [hertz for hertz in HERTZ if hertz < log_mel.sample_rate / 2]
    ax.set_yticks(bands(np.array(ticks, float), log_mel), list(map(str, ticks)))
