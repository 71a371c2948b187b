"""Predictions as text: a table, CSV, JSON lines, and label tracks of Audacity."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence

import numpy as np

from audiojax.predictor import Prediction
from audiojax.task import Task

# Of classes that may be heard together, those with even odds.
EVEN = 0.5
COLUMNS = ("file", "part", "start", "end", "rank", "class", "probability")


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which classes are listed.

    Attributes:
        classes: names of all, in the order of the probabilities.
        among: names of those that may be listed.
        top: how many at most.
        threshold: the least probability.
    """

    classes: tuple[str, ...]
    among: tuple[str, ...]
    top: int
    threshold: float = 0.0

    def of(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        """Names and probabilities of what is listed, the most probable first."""
        shares = dict(zip(self.classes, probabilities.tolist(), strict=True))
        ranked = sorted(self.among, key=shares.__getitem__, reverse=True)[: self.top]
        return [
            (name, shares[name]) for name in ranked if shares[name] >= self.threshold
        ]


@dataclasses.dataclass(frozen=True)
class Told:
    """What a table tells of one sound.

    Attributes:
        name: of the file.
        found: the prediction.
        whole: [classes] probabilities of the whole sound.
        windows: [W, classes] of its windows.
    """

    name: str
    found: Prediction
    whole: np.ndarray
    windows: np.ndarray

    @classmethod
    def by(cls, task: Task, name: str, found: Prediction) -> Told:
        """With the probabilities of a prediction's logits."""
        logits = found.logits, found.window_logits
        return cls(name, found, *map(task.probabilities, logits))

    def parts(self) -> list[tuple[str, float, float, np.ndarray]]:
        """The whole, and windows where there is more than one: start, end, shares."""
        parts = [("whole", 0.0, self.found.seconds, self.whole)]
        if len(self.windows) > 1:
            times = zip(self.found.start, self.found.end, self.windows, strict=True)
            parts += [("window", float(a), float(b), shares) for a, b, shares in times]
        return parts


def table(told: Told, choice: Choice) -> str:
    """Lines for a reader."""
    width, lines = max(map(len, choice.among)), []
    for part, start, end, shares in told.parts():
        cells = [f"{name:<{width}} {share:6.1%}" for name, share in choice.of(shares)]
        where = f"{start:10.2f} to {end:10.2f} s"
        name = told.name if part == "whole" else where
        lines.append("  ".join([name, *(cells or ["nothing above the threshold"])]))
    return "\n".join(lines)


def csv_lines(told: Told, choice: Choice) -> str:
    """A line for each class that is listed, of the whole and of each window."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for part, start, end, shares in told.parts():
        for rank, (name, share) in enumerate(choice.of(shares), 1):
            times = f"{start:.3f}", f"{end:.3f}"
            writer.writerow([told.name, part, *times, rank, name, f"{share:.6f}"])
    return buffer.getvalue().removesuffix("\n")


def json_line(told: Told, choice: Choice) -> str:
    """One object."""
    (_, _, seconds, whole), *windows = told.parts()

    def listed(shares: np.ndarray) -> list[dict[str, str | float]]:
        found = choice.of(shares)
        return [{"class": n, "probability": round(share, 6)} for n, share in found]

    return json.dumps(
        {
            "file": told.name,
            "seconds": round(seconds, 3),
            "classes": listed(whole),
            "windows": [
                {"start": round(a, 3), "end": round(b, 3), "classes": listed(shares)}
                for _, a, b, shares in windows
            ],
        }
    )


# What stands first, and what is printed of each sound.
FORMATS: dict[str, tuple[str, Callable[[Told, Choice], str]]] = {
    "table": ("", table),
    "csv": (",".join(COLUMNS), csv_lines),
    "jsonl": ("", json_line),
}


def label_track(told: Told, choice: Choice, task: Task) -> str:
    """The text of a label track, which Audacity reads: start, end, class.

    A window speaks for the time that is nearer to its middle than to that of any other.
    With one class a clip it is the most probable that is named, with several each with
    even odds or more; the threshold of the choice holds too.
    """
    start, end = told.found.start, told.found.end
    middle = (start + end) / 2
    edges = [0.0, *((middle[:-1] + middle[1:]) / 2), told.found.seconds]
    several = task.name == "multi_label"
    if several:
        least = choice.threshold or EVEN
        choice = dataclasses.replace(choice, threshold=least, top=len(choice.among))
    else:
        choice = dataclasses.replace(choice, top=1)
    heard = [{name for name, _ in choice.of(shares)} for shares in told.windows]
    regions = []
    for name in choice.among:
        here = [name in names for names in heard]
        for first, last in stretches(here):
            regions.append((edges[first], edges[last + 1], " ".join(name.split())))
    return "".join(f"{a:.6f}\t{b:.6f}\t{name}\n" for a, b, name in sorted(regions))


def stretches(values: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last number of each stretch of true values."""
    padded = np.concatenate([[False], values, [False]]).astype(np.int8)
    steps = np.diff(padded)
    pairs = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
    return [(int(first), int(after) - 1) for first, after in pairs]
