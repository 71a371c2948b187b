"""Writes what was trained as one page to open in a browser, with all in it.

python -m audiojax.report WORKDIR [WORKDIR ...] [--out FILE.html] [--sounds DIR]
    [--noexplain]

Without --out the page is `report.html` in the first workdir. With the folder of the
data set's sounds, the mistakes can be heard and seen, and what was looked at in them. A
workdir may be that of a study (`transfer.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags
from etils import epath
from markupsafe import Markup
from sklearn import metrics

from audiojax import (
    command,
    drawings,
    figures,
    files,
    html,
    mistakes,
    study,
    summary,
)
from audiojax.errors import InputError
from audiojax.mistakes import MOST_SECONDS, Find
from audiojax.summary import Fold
from audiojax.workdir import Workdir

PAGE = "report.html"
# Fields of the config that tell a recipe, beside the augmentations that are on.
RECIPE = (
    *("epochs", "batch_size", "optimizer.name", "optimizer.learning_rate"),
    *("optimizer.schedule", "optimizer.weight_decay", "optimizer.label_smoothing"),
    *("optimizer.ema_decay", "model.dropout", "model.standardize"),
    *("model.freeze", "model.reinitialize", "model.cut"),
    *("data.clip_mode", "data.clip_seconds", "data.balance", "data.split"),
    *("features.sample_rate", "features.n_mels", "features.frames"),
    "sweep.validation",
)


def write(workdir: epath.PathLike) -> epath.Path:
    """Draws what a finished sweep left; each clip counts once for each seed.

    Returns:
        The picture: `confusion.png`, or `average_precision.png` where a clip may have
        several classes.
    """
    opened = Workdir(workdir)
    found = summary.folds(opened)
    multi = opened.task.name == "multi_label"
    path = opened.path / ("average_precision.png" if multi else "confusion.png")
    figures.save_png(_main_figure(found, opened), path)
    return path


def _main_figure(found: Sequence[Fold], opened: Workdir) -> Any:
    everything, counted = summary.pooled(found), summary.counted(found)
    if opened.task.name != "multi_label":
        predicted = everything.logits.argmax(axis=-1)
        return figures.confusion_matrix(
            everything.label, predicted, opened.classes, counted
        )
    label, logits = everything.label, everything.logits
    precision = {
        opened.classes[int(i)]: float(
            metrics.average_precision_score(label[:, i], logits[:, i])
        )
        for i in np.flatnonzero(label.any(axis=0))
    }
    return figures.average_precision(precision, counted)


def write_page(
    workdirs: Sequence[epath.PathLike],
    out: epath.PathLike | None = None,
    find: Find | None = None,
    *,
    explained: bool = True,
) -> epath.Path:
    """Writes the page of one workdir, or of several side by side, or of a study.

    Args:
        workdirs: folders that training has filled; a study's alone.
        out: the file; None for `report.html` in the first workdir.
        find: gives the clips of the data set, so that mistakes can be heard and seen,
            such as `mistakes.in_folder` makes; None to list them only.
        explained: whether to draw what of them was looked at.

    Returns:
        The file.

    Raises:
        InputError: if a workdir has no finished run or can't be read, or the page
            can't be written.
    """
    if any((epath.Path(folder) / study.TRANSFER).exists() for folder in workdirs):
        return _write_study(workdirs, out)
    opened = [Workdir(workdir) for workdir in workdirs]
    path = epath.Path(out) if out else opened[0].path / PAGE
    files.check_writable(path)
    parts = [_part(one, f"w{i}", find, explained) for i, one in enumerate(opened, 1)]
    files.write_bytes(path, _rendered(parts, find is not None, explained).encode())
    return path


def _rendered(
    parts: Sequence[Mapping[str, Any]], with_sounds: bool, explained: bool
) -> str:
    return html.render(
        "report.html",
        parts=parts,
        with_sounds=with_sounds,
        explained=explained,
        data_differ=len({part["data_sum"] for part in parts}) > 1,
        most_seconds=MOST_SECONDS,
    )


def _write_study(
    workdirs: Sequence[epath.PathLike], out: epath.PathLike | None
) -> epath.Path:
    """Writes the page of a study, which is the one workdir.

    Raises:
        InputError: if there are others beside it, or as `study.read`.
    """
    if len(workdirs) > 1:
        raise InputError(
            f"one of {len(workdirs)} workdirs is a study's, whose page is of it alone; "
            "give it alone, or the workdirs of its trainings, which lie in it"
        )
    folder = epath.Path(workdirs[0])
    path = epath.Path(out) if out else folder / PAGE
    files.check_writable(path)
    found = study.read(folder)
    drawn = [
        (drawing, figures.svg(drawing.figure, drawing.name, *drawing.said))
        for drawing in drawings.drawings(found)
    ]
    content = html.render(
        "study.html",
        name=folder.name or str(folder),
        study=found,
        saying=study.SAYING,
        drawings=drawn,
    )
    files.write_bytes(path, content.encode())
    return path


def _part(
    opened: Workdir, key: str, find: Find | None, explained: bool
) -> dict[str, Any]:
    """What the page says of one workdir; `key` begins the ids of its elements."""
    found = summary.folds(opened)
    everything = summary.pooled(found)
    calibrated = summary.calibrated(found, opened)
    multi, counted = opened.task.name == "multi_label", summary.counted(found)
    title = "Average precision of each class" if multi else "Confusion matrix"
    said = (
        f"Bars, the best class first, of {counted}. The table of classes has the same."
        if multi
        else f"Rows are true classes, columns predicted ones. Numbers count {counted}. "
        "The table of the most frequent confusions has the largest of them."
    )
    rows = summary.table(found, opened)
    wrong = summary.mistakes(found, opened)
    data = opened.data
    return {
        "key": key,
        "name": opened.path.name or str(opened.path),
        "path": str(opened.path),
        "multi": multi,
        "metric": opened.task.metric,
        "counted": counted,
        "facts": _facts(opened),
        "recipe": _recipe(opened.config),
        "model": opened.model,
        "weights": opened.config["model"].get("pretrained") or "random",
        "data": _data_name(opened),
        "data_sum": data.sha256 if data else None,
        "epochs": opened.config["epochs"],
        "unfinished": [run.name for run in opened.unfinished],
        "rows": rows,
        "several": any(row["ensemble"] for row in rows),
        "main_figure": figures.svg(
            _main_figure(found, opened), f"{key}-main", title, said
        ),
        "curves": _curves(opened, key),
        "classes": summary.per_class(everything, opened),
        "confusions": [] if multi else summary.confusions(everything, opened),
        "calibration": calibrated,
        "reliability": figures.svg(
            figures.reliability(calibrated.before, calibrated.after),
            f"{key}-reliability",
            "Reliability diagram",
            "The share that is right over the probability given; on the diagonal the "
            "two are the same. The table of bins has the numbers.",
        ),
        "mistakes": mistakes.shown(wrong, opened, find, explained=explained)
        if find
        else wrong,
    }


def _data_name(opened: Workdir) -> str:
    return opened.data.name if opened.data else opened.config["data"]["name"]


def _facts(opened: Workdir) -> list[tuple[str, str]]:
    config, data, origin = opened.config, opened.data, opened.origin
    task = "several labels a clip" if opened.task.name == "multi_label" else ""
    facts = [("Data", _data_name(opened))]
    if data is not None:
        recordings = len({clip[3] for clip in data.clips})
        facts += [
            ("Clips", f"{len(data.clips):,}, of {recordings:,} recordings"),
            ("Folds in the data", str(len({clip[2] for clip in data.clips}))),
        ]
    facts += [
        ("Classes", f"{len(opened.classes)}" + (f", {task}" if task else "")),
        ("Folds tested", ", ".join(map(str, opened.folds))),
        ("Seeds", ", ".join(map(str, sorted({run.seed for run in opened.runs})))),
        ("Network", opened.model),
        ("Weights to begin with", config["model"].get("pretrained") or "random"),
        ("Training", f"{sum(e.seconds for e in opened.entries) / 60:,.1f} minutes"),
        ("Workdir", str(opened.path)),
    ]
    for name, value in origin.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {told}" for key, told in value.items())
        facts.append((name.replace("_", " ").capitalize(), str(value)))
    return facts


def _recipe(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Main fields of the config, and the augmentations that are on."""
    found = []
    for name in RECIPE:
        *parents, last = name.split(".")
        fields = config
        for parent in parents:
            fields = fields.get(parent, {})
        if fields.get(last) not in (None, False):
            found.append((name, str(fields[last])))
    changes = config.get("augment", {}).items()
    return found + [(f"augment.{name}", str(x)) for name, x in changes if x]


def _curves(opened: Workdir, key: str) -> list[Markup]:
    """Pictures of loss and score over the steps, of what runs have told."""
    metric, drawn = opened.task.metric, []
    scores = {"test": f"test_{metric}"}
    if metric == "accuracy":
        scores = {"training": "train_accuracy", **scores}
    losses = {"training": "train_loss", "test": "test_loss"}
    for name, parts in (("loss", losses), (metric, scores)):
        curves = {part: summary.curves(opened, field) for part, field in parts.items()}
        curves = {part: folds for part, folds in curves.items() if folds}
        if not curves:
            continue
        ends = [
            f"{part} ends at {np.mean([r[1][-1] for f in c.values() for r in f]):.3f}"
            for part, c in curves.items()
        ]
        figure = figures.learning_curves(curves, name, share=name != "loss")
        said = f"Mean over runs: {', '.join(ends)}."
        drawn.append(figures.svg(figure, f"{key}-{name}", f"{name} by step", said))
    return drawn


def define_flags() -> None:
    """Defines the flags, only for the command: importing this module brings none."""
    flags.DEFINE_string("out", None, f"The page; default {PAGE} in the first workdir.")
    flags.DEFINE_string("sounds", None, "The folder of the data set's sound files.")
    flags.DEFINE_bool("explain", True, "Draw what was looked at in the mistakes.")


def main(argv: Sequence[str]) -> None:
    """Writes the page of the workdirs named, and prints where it is."""
    options = flags.FLAGS
    command.prepare()
    if len(argv) < 2:
        command.stop("no workdir given; give one that was trained, or several")
    with command.one_sentence(options.out or argv[1]):
        find = mistakes.in_folder(options.sounds) if options.sounds else None
        path = write_page(argv[1:], options.out, find, explained=options.explain)
        print(f"report  {path}  ({files.size_text(path.stat().length)})")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=functools.partial(command.parse, None))
