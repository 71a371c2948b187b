"""Averages finished runs, also those of different models, from their workdirs.

python -m audiojax.ensemble WORKDIR [WORKDIR ...] [--folds 1,2]
    [--average logits|probabilities] [--weights equal|validation] [--mistakes]
    [--out FILE.json]

In every fold, the runs (seeds) of a workdir are averaged first and the workdirs then.
So each workdir counts alike, however many seeds it has, and weights are given to
workdirs. What is read is each run's `predictions.npz` and, to choose weights, its
`validation.npz`; no network is run.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags
from etils import epath

from audiojax import calibration, command, files, scores
from audiojax import task as tasks
from audiojax.errors import InputError, difference
from audiojax.task import Average, Task
from audiojax.workdir import AGAIN, TEST, VALIDATION, Workdir, aligned, named

WEIGHTS = ("equal", "validation")


@dataclasses.dataclass
class Clips:
    """What the runs of one fold say of the same clips.

    Attributes:
        filename: [N].
        label: [N], or [N, classes] of 0 and 1.
        logits: for each workdir, one array [N, classes] a run.
    """

    filename: np.ndarray
    label: np.ndarray
    logits: list[list[np.ndarray]]

    def members(self, average: Average) -> list[np.ndarray]:
        """The average of each workdir's runs, [N, classes]."""
        return [average(runs, None) for runs in self.logits]


@contextlib.contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Adds an InputError to the problems, so that all are told at once."""
    try:
        yield
    except InputError as error:
        problems.append(str(error))


def check_classes(workdirs: Sequence[Workdir]) -> Iterator[str]:
    """A sentence for each workdir whose classes are not those of the first."""
    for other in workdirs[1:]:
        first = workdirs[0]
        if what := difference(first.classes, other.classes):
            yield f"{other.path}: other classes than {first.path}; it {what}"
        elif other.classes != first.classes:
            pairs = enumerate(zip(first.classes, other.classes, strict=False))
            differ = [f"{i} is {b}, there {a}" for i, (a, b) in pairs if a != b]
            yield (
                f"{other.path}: the same classes as {first.path} in another order; "
                f"class {named(differ)}"
            )


def check_sounds(workdirs: Sequence[Workdir]) -> Iterator[str]:
    """A sentence for each workdir whose clips sound otherwise than the first's."""
    known = [(workdir.path, workdir.data) for workdir in workdirs]
    told = [(path, data) for path, data in known if data is not None]
    for path, data in told[1:]:
        first, theirs = told[0]
        if changed := data.other_sounds(theirs):
            yield f"{path}: other sounds than {first} has as {named(changed)}"


def check_finished(
    workdirs: Sequence[Workdir], wanted: Sequence[int] | None
) -> Iterator[str]:
    """A sentence for each workdir that has no finished run, or runs still to come."""
    if workdirs and not wanted and not any(workdir.runs for workdir in workdirs):
        yield f"{named(w.path for w in workdirs)}: no finished run; train first"
    for workdir in workdirs:
        unfinished = [
            f"fold {run.fold} seed {run.seed}"
            for run in workdir.unfinished
            if not wanted or run.fold in wanted
        ]
        if unfinished:
            yield (
                f"{workdir.path}: not finished: {named(unfinished)}; type its "
                "training command again to go on"
            )


def choose_folds(
    workdirs: Sequence[Workdir], wanted: Sequence[int] | None
) -> tuple[list[int], list[str]]:
    """The folds that all workdirs have, and a sentence for each that only some have."""
    asked = {f for w in workdirs for f in w.folds} if not wanted else set(wanted)
    having = {f: [w.path for w in workdirs if f in w.folds] for f in sorted(asked)}
    common = [fold for fold, paths in having.items() if len(paths) == len(workdirs)]
    hint = f"; choose with --folds={','.join(map(str, common))}" if common else ""
    return common, [
        f"fold {fold}: {'only ' + named(paths) if paths else 'no workdir'} has a "
        f"finished run of it{hint}"
        for fold, paths in having.items()
        if fold not in common
    ]


def check_present(
    workdirs: Sequence[Workdir], folds: Sequence[int], name: str
) -> Iterator[str]:
    """A sentence for each workdir whose runs lack the file `name`."""
    advice = {
        TEST: f"copy the whole run here, or {AGAIN}",
        VALIDATION: "weights are chosen on validation clips only, so train with "
        "config.sweep.validation set, in another workdir, or take --weights=equal",
    }
    for workdir in workdirs:
        if lacking := [run.name for run in workdir.lacking(name, folds)]:
            yield f"{workdir.path}: no {name} in {named(lacking)}; {advice[name]}"


def gather(
    workdirs: Sequence[Workdir], fold: int, name: str, problems: list[str]
) -> Clips:
    """Reads the file `name` of all runs of a fold, in the order of the first one.

    What can't be averaged is added to the problems.
    """
    theirs, first = None, epath.Path()
    clips = Clips(np.array([]), np.array([]), [[] for _ in workdirs])
    for workdir, logits in zip(workdirs, clips.logits, strict=True):
        for run in workdir.of_fold(fold):
            path = workdir.file(run, name)
            with collected(problems):
                ours = workdir.predictions(run, name)
                if theirs is None:
                    theirs, first = ours, path
                    clips.filename, clips.label = ours.filename, ours.label
                logits.append(aligned(ours, path, theirs, first))
    return clips


def open_all(
    paths: Sequence[str], wanted: Sequence[int] | None, names: Sequence[str]
) -> tuple[list[Workdir], dict[int, dict[str, Clips]]]:
    """Opens the workdirs, and reads for each fold wanted these files of its runs.

    Raises:
        InputError: if anything is missing, damaged or not of the same clips and
            classes; all that is wrong is told at once.
    """
    if not paths:
        raise InputError("no workdir given; add one or more that audiojax.main filled")
    problems: list[str] = []
    places = [epath.Path(path).resolve() for path in paths]
    times = collections.Counter(places)
    twice = {path for path, at in zip(paths, places, strict=True) if times[at] > 1}
    if twice:
        problems.append(f"the same workdir twice: {', '.join(sorted(twice))}")
    workdirs = []
    for path in paths:
        with collected(problems):
            workdirs.append(Workdir(path))
    problems += check_classes(workdirs)
    with collected(problems):
        problems += check_sounds(workdirs)
    folds, absent = choose_folds(workdirs, wanted)
    problems += [*absent, *check_finished(workdirs, wanted)]
    clips: dict[int, dict[str, Clips]] = {fold: {} for fold in folds}
    for name in names:
        if absent := list(check_present(workdirs, folds, name)):
            problems += absent
            continue
        for fold in folds:
            clips[fold][name] = gather(workdirs, fold, name, problems)
    for fold, found in clips.items():
        both = [set(part.filename) for part in found.values()]
        if len(both) == 2 and (shared := both[0] & both[1]):
            problems.append(
                f"fold {fold}: clips both in {TEST} and {VALIDATION}, so weights "
                f"would be chosen on what they are tested on: "
                f"{named(sorted(shared))}; train again"
            )
    if problems:
        raise InputError("\n  ".join(["these can't be averaged:", *problems]))
    return workdirs, clips


def score_fold(
    test: Clips,
    validation: Clips | None,
    classes: Sequence[str],
    task: Task,
    average: Average,
) -> dict[str, Any]:
    """The scores of one fold: see `ensemble`."""
    members, weights = test.members(average), None
    if validation is not None:
        seen = validation.members(average)
        weights = scores.choose_weights(seen, validation.label, average, task).tolist()
    by_workdir = []
    for i, (runs, member) in enumerate(zip(test.logits, members, strict=True)):
        singles = [task.scores(run, test.label)[task.metric] for run in runs]
        found = scores.of_average(singles, member, test.label, task)
        weight = 1 / len(members) if weights is None else weights[i]
        kept = {kind: found[kind] for kind in ("single", "ensemble")}
        by_workdir.append({"weight": weight, **kept})
    singles = [workdir["single"] for workdir in by_workdir]
    logits = average(members, weights)
    found = scores.of_average(singles, logits, test.label, task)
    wrong = mistakes(test, logits, classes) if task.metric == "accuracy" else []
    return {
        "num_clips": found["num_clips"],
        "workdirs": by_workdir,
        **found,
        "mistakes": wrong,
    }


def mistakes(
    clips: Clips, logits: np.ndarray, classes: Sequence[str]
) -> list[dict[str, str]]:
    """The clips that logits [N, classes] take for something else, by their names."""
    clips_said = zip(clips.filename, clips.label, logits.argmax(axis=-1), strict=True)
    return [
        {"filename": str(name), "true": classes[int(true)], "said": classes[int(said)]}
        for name, true, said in sorted(clips_said)
        if said != true
    ]


def ensemble(
    paths: Sequence[str],
    *,
    average: str = "logits",
    weights: str = "equal",
    folds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Averages the runs of one or several workdirs, fold by fold.

    Args:
        paths: workdirs as `sweep.train` leaves them, folders or gs://.
        average: "logits", the paper's, or "probabilities".
        weights: "equal", or "validation": for each fold those with the least
            cross-entropy on that fold's own validation clips. Those of another fold
            may be this one's test clips, so they are not looked at.
        folds: which ones; None: all.

    Returns:
        `average`, `weights`, `classes`; `workdirs` with `workdir` and `model`;
        `folds`, for each: `num_clips`; in `workdirs`, in the same order, its `weight`,
        the mean score `single` of its runs (accuracy, or mAP), that `ensemble` of their
        average, and the names of its `runs`; `single`, the mean over the workdirs;
        `ensemble` and `loss` (nats), the score and cross-entropy of all averaged;
        `gain`, ensemble less single; `mistakes`, the clips that all averaged take for
        another class. `summary` has mean and standard deviation over the folds.
        `interval` is the 95 % interval of `ensemble`, over all clips together. Scores
        are shares of 1. With several labels a clip there are no mistakes, and the
        interval is None.

    Raises:
        InputError: if the workdirs can't be averaged; says all that is wrong.
    """
    names = [TEST] if weights == "equal" else [TEST, VALIDATION]
    workdirs, clips = open_all(paths, folds, names)
    task, rows = workdirs[0].task, []
    for fold, found in clips.items():
        validation = found.get(VALIDATION)
        classes, of_task = workdirs[0].classes, task.average(average)
        row = score_fold(found[TEST], validation, classes, task, of_task)
        for workdir, entry in zip(workdirs, row["workdirs"], strict=True):
            entry["runs"] = [run.name for run in workdir.of_fold(fold)]
        rows.append({"fold": fold, **row})
    interval = None
    if task.metric == "accuracy":
        shares = [row["ensemble"] for row in rows]
        counts = [row["num_clips"] for row in rows]
        interval = list(calibration.wilson_together(shares, counts))
    kinds = ("single", "ensemble")
    return {
        "average": average,
        "weights": weights,
        "classes": list(workdirs[0].classes),
        "workdirs": [{"workdir": str(w.path), "model": w.model} for w in workdirs],
        "folds": rows,
        "summary": {
            "workdirs": [
                scores.over_folds(of_one, (*kinds, "weight"))
                for of_one in zip(*(row["workdirs"] for row in rows), strict=True)
            ],
            **scores.over_folds(rows, (*kinds, "gain")),
        },
        "interval": interval,
    }


def table(results: Mapping[str, Any]) -> str:
    """What `ensemble` gives as lines of text."""
    numbers = range(1, len(results["workdirs"]) + 1)
    kinds = ["single", "ensemble"] + ["weight"] * (results["weights"] != "equal")
    header = [f"{kind} {i}" for i in numbers for kind in kinds]
    rows = [["fold", *header, "single", "ensemble", "gain"]]

    def add(name: object, row: Mapping[str, Any]) -> None:
        cells = [
            f"{entry[kind]:.3f}" if kind == "weight" else f"{entry[kind]:.2%}"
            for entry in row["workdirs"]
            for kind in kinds
        ]
        ends = f"{row['single']:.2%}", f"{row['ensemble']:.2%}"
        rows.append([str(name), *cells, *ends, f"{100 * row['gain']:+.2f}"])

    for fold in results["folds"]:
        add(fold["fold"], fold)
    summary = dict(results["summary"])
    by_workdir = summary.pop("workdirs")
    for kind in ("mean", "std"):
        row: dict[str, Any] = {name: found[kind] for name, found in summary.items()}
        row["workdirs"] = [{n: x[kind] for n, x in w.items()} for w in by_workdir]
        add(kind, row)
    names = [
        f"{i}  {entry['workdir']}  ({entry['model']})"
        for i, entry in zip(numbers, results["workdirs"], strict=True)
    ]
    lines = [*names, command.columns(rows)]
    if results["interval"] is not None:
        low, high = (f"{100 * end:.1f}" for end in results["interval"])
        count = sum(fold["num_clips"] for fold in results["folds"])
        lines.append(f"95 % interval of the ensemble, {count} clips: {low} to {high} %")
    return "\n".join(lines)


def mistakes_table(results: Mapping[str, Any]) -> str:
    """The mistakes that `ensemble` gives as lines of text."""
    rows = [["fold", "clip", "is", "taken for"]]
    for fold in results["folds"]:
        rows += [[str(fold["fold"]), *wrong.values()] for wrong in fold["mistakes"]]
    return command.columns(rows) if len(rows) > 1 else "no mistakes"


def define_flags() -> None:
    """Defines the flags, only for the command: importing this module brings none."""
    flags.DEFINE_enum("average", "logits", list(tasks.KINDS), "What is averaged.")
    flags.DEFINE_enum(
        "weights", "equal", WEIGHTS, "Equal, or chosen on the validation clips."
    )
    flags.DEFINE_list("folds", None, "The folds, such as 1,2; default all.")
    flags.DEFINE_bool("mistakes", False, "List what all averaged take for another.")
    flags.DEFINE_string("out", None, "Where the scores go, as JSON; default nowhere.")


def main(argv: Sequence[str]) -> None:
    """Averages the workdirs named, prints the scores and writes them."""
    paths, options = argv[1:], flags.FLAGS
    command.prepare()
    try:
        folds = options.folds and [int(fold) for fold in options.folds]
    except ValueError:
        command.stop(f"--folds is {','.join(options.folds)}; give numbers, such as 1,2")
    with command.one_sentence(options.out or "the workdirs"):
        results = ensemble(
            paths, average=options.average, weights=options.weights, folds=folds
        )
        print(table(results))
        if options.mistakes:
            print(mistakes_table(results))
        if options.out:
            files.write_json(options.out, results)
            print(f"scores  {options.out}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
