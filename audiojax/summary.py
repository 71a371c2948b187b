"""What a workdir's predictions tell, as numbers and texts for a report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from audiojax import calibration, task
from audiojax.calibration import Reliability
from audiojax.errors import InputError
from audiojax.workdir import METRICS, VALIDATION, Predictions, Run, Workdir, aligned

# How many of each kind are listed.
MOST_MISTAKES, MOST_CONFUSIONS = 12, 10
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclasses.dataclass(frozen=True)
class Score:
    """A share of 1, with its 95 % interval where it has one."""

    value: float
    interval: tuple[float, float] | None = None

    def __str__(self):
        text = f"{self.value:.1%}"
        if self.interval is None:
            return text
        low, high = (f"{100 * end:.1f}" for end in self.interval)
        return f"{text} ({low} to {high})"


@dataclasses.dataclass(frozen=True)
class Fold:
    """The finished runs of a fold, and their average.

    Attributes:
        fold: its number.
        runs: by seed.
        members: their predictions, all in the same order of clips.
        average: of their logits; of one run its own.
    """

    fold: int
    runs: list[Run]
    members: list[Predictions]
    average: Predictions


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A clip that was taken for something else.

    Attributes:
        filename: of the clip.
        fold: where it was tested.
        true: what it is.
        said: what it was taken for.
        probability: that was given to `said`.
        target: the class that `said` names.
    """

    filename: str
    fold: int
    true: str
    said: str
    probability: float
    target: str


def folds(opened: Workdir) -> list[Fold]:
    """The predictions of all finished runs.

    Raises:
        InputError: if there are none, or some are damaged.
    """
    if not opened.entries:
        raise InputError(
            f"{opened.path}: no run is finished yet; type the training command again"
        )
    return [_fold(opened, fold) for fold in opened.folds]


def _fold(opened: Workdir, fold: int) -> Fold:
    runs = opened.of_fold(fold)
    first, *others = (opened.predictions(run) for run in runs)
    members = [first]
    for run, other in zip(runs[1:], others, strict=True):
        source = opened.path / run.name
        logits = aligned(other, source, first, opened.path / runs[0].name)
        members.append(dataclasses.replace(first, logits=logits))
    mean = task.average([member.logits for member in members])
    return Fold(fold, runs, members, dataclasses.replace(first, logits=mean))


def pooled(found: Sequence[Fold]) -> Predictions:
    """All runs' predictions one after the other, a clip once for each of its seeds."""
    members = [member for fold in found for member in fold.members]
    names = ("logits", "label", "filename")
    return Predictions(
        **{name: np.concatenate([getattr(m, name) for m in members]) for name in names}
    )


def counted(found: Sequence[Fold]) -> str:
    """What numbers that are pooled over runs count, such as "240 clips x 3 seeds"."""
    clips = sum(len(fold.average.label) for fold in found)
    text = f"{clips:,} clip" + "s" * (clips != 1)
    seeds = {len(fold.runs) for fold in found}
    if seeds == {1}:
        return text
    if len(seeds) == 1:
        return f"{text} {TIMES} {seeds.pop()} seeds"
    total = sum(len(fold.average.label) * len(fold.runs) for fold in found)
    return f"{total:,} predictions: {text} {TIMES} the seeds of their folds"


def table(found: Sequence[Fold], opened: Workdir) -> list[dict[str, Any]]:
    """Scores of each fold, then over all of them.

    Returns:
        `name`, `num_clips`, `seeds` (each its score), `single`, and `ensemble` and
        `gain` where a fold has several seeds. The last row is the mean of the folds,
        its interval that of all clips together.
    """
    rows = [_row(fold, opened) for fold in found]
    kinds = ("single", "ensemble")
    last: dict[str, Any] = {
        "name": "mean of folds" if len(found) > 1 else "",
        "num_clips": sum(row["num_clips"] for row in rows),
        "seeds": [],
        "ensemble": None,
    }
    several = all(row["ensemble"] for row in rows)
    for kind in kinds if several else kinds[:1]:
        value = float(np.mean([row[kind].value for row in rows]))
        if opened.task.metric == "accuracy":
            shares = [row[kind].value for row in rows]
            counts = [row["num_clips"] for row in rows]
            interval = calibration.wilson_together(shares, counts)
        else:
            drawn = np.mean([row["drawn"][kind] for row in rows], axis=0)
            interval = calibration.percentiles(drawn)
        spread = float(np.std([row[kind].value for row in rows]))
        last[kind], last[f"{kind}_std"] = Score(value, interval), spread
    last["gain"] = last["ensemble"].value - last["single"].value if several else None
    return [*rows, last] if len(found) > 1 else rows


def _row(fold: Fold, opened: Workdir) -> dict[str, Any]:
    label, metric, count = fold.average.label, opened.task.metric, len(fold.runs)
    seeds = [opened.task.scores(m.logits, label)[metric] for m in fold.members]
    average = opened.task.scores(fold.average.logits, label)[metric]
    drawn, single = {}, float(np.mean(seeds))
    if metric == "accuracy":
        intervals = {
            "single": calibration.wilson(single, len(label)),
            "ensemble": calibration.wilson(average, len(label)),
        }
    else:
        weights = calibration.resamples(len(label), fold.fold)
        of_seeds = [
            calibration.mean_average_precision(label, m.logits, weights)
            for m in fold.members
        ]
        of_mean = calibration.mean_average_precision
        drawn["single"] = np.mean(of_seeds, axis=0)
        drawn["ensemble"] = of_mean(label, fold.average.logits, weights)
        intervals = {kind: calibration.percentiles(x) for kind, x in drawn.items()}
    return {
        "name": f"fold {fold.fold}",
        "num_clips": len(label),
        "seeds": list(zip([run.seed for run in fold.runs], seeds, strict=True)),
        "single": Score(single, intervals["single"]),
        "ensemble": Score(average, intervals["ensemble"]) if count > 1 else None,
        "gain": average - single if count > 1 else None,
        "drawn": drawn,
    }


def per_class(found: Predictions, opened: Workdir) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class as scikit-learn has them, and its count.

    And where a clip may have several classes the average precision, None of a class
    without a clip; a class is then said to be there at more than even odds.
    """
    multi = opened.task.name == "multi_label"
    said = found.logits > 0 if multi else found.logits.argmax(axis=-1)
    nothing: Any = 0  # its annotation knows text alone
    columns: Any = metrics.precision_recall_fscore_support(
        found.label,
        said,
        labels=range(len(opened.classes)),
        zero_division=nothing,
    )
    rows = []
    for i, (name, *values) in enumerate(zip(opened.classes, *columns, strict=True)):
        row = dict(zip(("precision", "recall", "f1", "count"), values, strict=True))
        row |= {"name": name, "average_precision": None}
        if multi and row["count"]:
            row["average_precision"] = float(
                metrics.average_precision_score(found.label[:, i], found.logits[:, i])
            )
        rows.append(row)
    return rows


def confusions(found: Predictions, opened: Workdir) -> list[tuple[str, str, int]]:
    """The most frequent ones: true class, predicted class, how often."""
    counts = metrics.confusion_matrix(
        found.label, found.logits.argmax(axis=-1), labels=range(len(opened.classes))
    )
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    named = opened.classes
    return [(named[i], named[j], int(counts[i, j])) for i, j in pairs if counts[i, j]]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far all runs' probabilities are what they claim.

    Attributes:
        before: as trained.
        after: with each run's temperature; None without validation clips.
        temperatures: of each run, by its name.
    """

    before: Reliability
    after: Reliability | None
    temperatures: dict[str, float]


def calibrated(found: Sequence[Fold], opened: Workdir) -> Calibration:
    """Compares probabilities with how often they are right.

    Each run's temperature is fitted on its own validation clips.
    """
    runs = [run for fold in found for run in fold.runs]
    members = [member for fold in found for member in fold.members]

    def reliability(scales: Sequence[float]) -> Reliability:
        pairs = [
            calibration.confidences(m.logits / scale, m.label, opened.task)
            for m, scale in zip(members, scales, strict=True)
        ]
        given, right = (np.concatenate(x) for x in zip(*pairs, strict=True))
        return calibration.reliability(given, right)

    before = reliability([1.0] * len(runs))
    if opened.lacking(VALIDATION, opened.folds):
        return Calibration(before, None, {})
    temperatures = {}
    for run in runs:
        held = opened.predictions(run, VALIDATION)
        fitted = calibration.temperature(held.logits, held.label, opened.task)
        temperatures[run.name] = fitted
    return Calibration(before, reliability(list(temperatures.values())), temperatures)


def mistakes(found: Sequence[Fold], opened: Workdir) -> list[Mistake]:
    """Those that the average of each fold's runs is surest of, the surest first."""
    rows = [
        mistake
        for fold in found
        for mistake in (
            _several_labels(fold, opened)
            if opened.task.name == "multi_label"
            else _one_label(fold, opened)
        )
    ]
    rows.sort(key=lambda row: (-row.probability, row.filename))
    return rows[:MOST_MISTAKES]


def _one_label(fold: Fold, opened: Workdir) -> list[Mistake]:
    found = fold.average
    probability = np.exp(opened.task.log_probabilities(found.logits))
    said = found.logits.argmax(axis=-1)
    return [
        Mistake(
            str(found.filename[i]),
            fold.fold,
            opened.classes[found.label[i]],
            opened.classes[said[i]],
            float(probability[i, said[i]]),
            opened.classes[said[i]],
        )
        for i in np.flatnonzero(said != found.label)
    ]


def _several_labels(fold: Fold, opened: Workdir) -> list[Mistake]:
    found, named = fold.average, opened.classes
    there = np.exp(opened.task.log_probabilities(found.logits))
    wrong = (there > 0.5) != (found.label > 0.5)
    sure = np.where(wrong, np.maximum(there, 1 - there), 0)
    order = np.argsort(-sure, axis=None, kind="stable")[:MOST_MISTAKES]
    rows = []
    for i, j in zip(*np.unravel_index(order, sure.shape), strict=True):
        if wrong[i, j]:
            true = ", ".join(named[k] for k in np.flatnonzero(found.label[i] > 0.5))
            said = named[j] if there[i, j] > 0.5 else f"not {named[j]}"
            probability = float(sure[i, j])
            clip = str(found.filename[i])
            rows.append(
                Mistake(clip, fold.fold, true or "none", said, probability, named[j])
            )
    return rows


def curves(opened: Workdir, name: str) -> dict[int, list[tuple[list, list]]]:
    """A scalar of each run over the steps, by fold; runs without it are left out."""
    found: dict[int, list[tuple[list, list]]] = {}
    for run in opened.runs:
        path = opened.file(run, METRICS)
        if not path.exists():
            continue
        lines: list[Mapping[str, float]] = [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            steps, values = map(list, zip(*points, strict=True))
            found.setdefault(run.fold, []).append((steps, values))
    return found
