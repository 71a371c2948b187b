"""Averages finished runs, also those of different models, from their workdirs.

python -m audiojax.ensemble WORKDIR [WORKDIR ...] [--folds 1,2]
    [--average logits|probabilities] [--weights equal|validation] [--out FILE.json]

In every fold, the runs (seeds) of a workdir are averaged first and the workdirs then.
So each workdir counts alike, however many seeds it has, and weights are given to
workdirs. What is read is each run's `predictions.npz` and, to choose weights, its
`validation.npz`; no network is run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags
from etils import epath
from scipy import optimize

from audiojax import command, files
from audiojax import task as tasks
from audiojax.errors import InputError, listed
from audiojax.task import Average, Task

Predictions = Mapping[str, np.ndarray]

WEIGHTS = ("equal", "validation")
TEST, VALIDATION = "predictions.npz", "validation.npz"

# What NumPy raises at an .npz with one bit flipped, or cut off anywhere.
UNREADABLE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """What `results.json` says of a sweep.

    Attributes:
        path: where it lies, as the user gave it.
        model: the name of its model.
        classes: names, in the order of the logits.
        task: what its labels mean.
        runs: the names of the finished runs of each fold.
        unfinished: (fold, seed) of the runs that its config asks for and that are not
            among them.
    """

    path: str
    model: str
    classes: list[str]
    task: Task
    runs: dict[int, list[str]]
    unfinished: list[tuple[int, int]]

    def file(self, run: str, name: str) -> epath.Path:
        """The path of a file of a run."""
        return epath.Path(self.path) / run / name


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


named = functools.partial(listed, between=", ")


@contextlib.contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Adds an InputError to the problems, so that all are told at once."""
    try:
        yield
    except InputError as error:
        problems.append(str(error))


def read_workdir(path: str) -> Workdir:
    """Reads a workdir's `results.json`.

    Raises:
        InputError: if there is none, or it is not what a sweep writes.
    """
    try:
        results = files.read_json(epath.Path(path) / "results.json")
        config = results["config"]
        done = {(run["fold"], run["seed"]): run["name"] for run in results["runs"]}
        planned = itertools.product(config["sweep"]["folds"], config["sweep"]["seeds"])
        folds = sorted({fold for fold, _ in done})
        return Workdir(
            path=path,
            model=config["model"]["name"],
            classes=results["classes"],
            task=tasks.TASKS[results["task"]],
            runs={f: [name for (g, _), name in done.items() if g == f] for f in folds},
            unfinished=[run for run in planned if run not in done],
        )
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: no results.json, so this is not a workdir with a finished run; "
            "give the folder that was --workdir in training"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}/results.json: not what a sweep writes ({error!r}); type its "
            "training command again, which writes it anew, or give another workdir"
        ) from None


def check_classes(workdirs: Sequence[Workdir]) -> list[str]:
    """A sentence for each workdir whose classes are not those of the first."""
    if not workdirs:
        return []
    first, *others = workdirs
    problems = []
    for other in others:
        missing = [name for name in first.classes if name not in other.classes]
        extra = [name for name in other.classes if name not in first.classes]
        if missing or extra:
            parts = [f"lacks {named(missing)}"] * bool(missing)
            parts += [f"adds {named(extra)}"] * bool(extra)
            problems.append(
                f"{other.path}: other classes than {first.path}; "
                f"it {' and '.join(parts)}"
            )
        elif other.classes != first.classes:
            pairs = zip(itertools.count(), first.classes, other.classes, strict=False)
            differ = [f"{i} is {b}, there {a}" for i, a, b in pairs if a != b]
            problems.append(
                f"{other.path}: the same classes as {first.path} in another order; "
                f"class {named(differ)}"
            )
    return problems


def choose_folds(
    workdirs: Sequence[Workdir], wanted: Sequence[int] | None
) -> tuple[list[int], list[str]]:
    """The folds that every workdir has, and what speaks against averaging them.

    Args:
        workdirs: all of them.
        wanted: the folds asked for; None: all, which must be the same everywhere.

    Returns:
        The folds, and a sentence for each thing that is wrong.
    """
    having = {
        fold: [w.path for w in workdirs if fold in w.runs]
        for fold in sorted({f for w in workdirs for f in w.runs} | set(wanted or ()))
        if wanted is None or fold in wanted
    }
    common = [fold for fold, paths in having.items() if len(paths) == len(workdirs)]
    hint = f"; choose with --folds={','.join(map(str, common))}" if common else ""
    problems = [
        f"fold {fold}: {'only ' + named(paths) if paths else 'no workdir'} has a "
        f"finished run of it{hint}"
        for fold, paths in having.items()
        if fold not in common
    ]
    if not having and workdirs:
        problems.append(
            f"{named(w.path for w in workdirs)}: no finished run; train first"
        )
    for workdir in workdirs:
        unfinished = [
            f"fold {fold} seed {seed}"
            for fold, seed in workdir.unfinished
            if wanted is None or fold in wanted
        ]
        if unfinished:
            problems.append(
                f"{workdir.path}: not finished: {named(unfinished)}; type its "
                "training command again to go on"
            )
    return common, problems


def check_present(
    workdirs: Sequence[Workdir], folds: Sequence[int], name: str
) -> list[str]:
    """A sentence for each workdir whose runs lack the file `name`."""
    advice = {
        TEST: "copy the whole run here, or train it again",
        VALIDATION: "weights are chosen on validation clips only, so train with "
        "config.sweep.validation set, in another workdir, or take --weights=equal",
    }
    problems = []
    for workdir in workdirs:
        runs = [run for fold in folds for run in workdir.runs[fold]]
        lacking = [run for run in runs if not workdir.file(run, name).exists()]
        if lacking:
            problems.append(
                f"{workdir.path}: no {name} in {named(lacking)}; {advice[name]}"
            )
    return problems


def read_predictions(path: epath.Path, num_classes: int) -> Predictions:
    """Reads a run's predictions of some clips.

    Args:
        path: an `.npz` of `logits` [N, classes], `label` [N] and `filename` [N].
        num_classes: how many classes there must be.

    Raises:
        InputError: if it is damaged, or is not such a file.
    """
    try:
        arrays = files.read_arrays(path)
        logits, label, filename = (
            arrays[name] for name in ("logits", "label", "filename")
        )
    except UNREADABLE as error:
        raise InputError(
            f"{path}: damaged ({error!r}); copy it again, or train its run again"
        ) from None
    shape = (len(filename), num_classes)
    if logits.shape != shape or len(label) != len(filename) or not len(filename):
        raise InputError(
            f"{path}: damaged: logits {logits.shape} and {len(label)} labels where "
            f"{shape} and {len(filename)} were expected; train its run again"
        )
    if not np.isfinite(logits).all():
        raise InputError(
            f"{path}: logits that are not finite, the training diverged; train its "
            "run again with a lower config.optimizer.learning_rate"
        )
    names, counts = np.unique(filename, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"{path}: clips that are there twice: {named(names[counts > 1])}; train "
            "its run again"
        )
    return arrays


def aligned(
    ours: Predictions, path: epath.Path, theirs: Predictions, first: epath.Path
) -> np.ndarray:
    """A run's logits in another run's order of clips.

    Args:
        ours: predictions of the run.
        path: where they were read, for messages.
        theirs: predictions of the run whose order is taken.
        first: where those were read.

    Returns:
        Logits [N, classes].

    Raises:
        InputError: if the clips or their labels are not the same; those that differ
            are named.
    """
    row = {str(name): i for i, name in enumerate(ours["filename"])}
    order = [str(name) for name in theirs["filename"]]
    missing = [name for name in order if name not in row]
    extra = sorted(row.keys() - set(order))
    if missing or extra:
        parts = [f"lacks {named(missing)}"] * bool(missing)
        parts += [f"adds {named(extra)}"] * bool(extra)
        raise InputError(
            f"{path}: other clips than {first}; it {' and '.join(parts)}; average "
            "runs of the same data and folds"
        )
    rows = [row[name] for name in order]
    differ = (ours["label"][rows] != theirs["label"]).reshape(len(rows), -1).any(axis=1)
    if differ.any():
        others = [
            f"{order[i]} is {ours['label'][rows[i]]}, there {theirs['label'][i]}"
            for i in np.flatnonzero(differ)
        ]
        raise InputError(
            f"{path}: other labels than {first}; {named(others)}; average runs of the "
            "same data"
        )
    return ours["logits"][rows]


def gather(
    workdirs: Sequence[Workdir], fold: int, name: str, problems: list[str]
) -> Clips:
    """Reads the file `name` of all runs of a fold, in the order of the first one.

    Args:
        workdirs: all of them.
        fold: which one.
        name: `predictions.npz` or `validation.npz`.
        problems: what can't be averaged is told here.
    """
    theirs, first = None, epath.Path()
    clips = Clips(np.array([]), np.array([]), [])
    for workdir in workdirs:
        logits = []
        for run in workdir.runs[fold]:
            path = workdir.file(run, name)
            with collected(problems):
                ours = read_predictions(path, len(workdir.classes))
                if theirs is None:
                    theirs, first = ours, path
                    clips = Clips(ours["filename"], ours["label"], clips.logits)
                logits.append(aligned(ours, path, theirs, first))
        clips.logits.append(logits)
    return clips


def open_all(
    paths: Sequence[str], folds: Sequence[int] | None, names: Sequence[str]
) -> tuple[list[Workdir], dict[int, dict[str, Clips]]]:
    """Reads and checks everything that is averaged.

    Args:
        paths: the workdirs.
        folds: those wanted, None for all.
        names: the files of each run that are needed.

    Returns:
        The workdirs, and for each fold and file its clips.

    Raises:
        InputError: if anything is missing, damaged or not of the same clips and
            classes; all that is wrong is told at once.
    """
    if not paths:
        raise InputError("no workdir given; add one or more that audiojax.main filled")
    problems: list[str] = []
    resolved = [str(epath.Path(path).resolve()) for path in paths]
    twice = {p for p, r in zip(paths, resolved, strict=True) if resolved.count(r) > 1}
    if twice:
        problems.append(f"the same workdir twice: {', '.join(sorted(twice))}")
    workdirs = []
    for path in paths:
        with collected(problems):
            workdirs.append(read_workdir(path))
    problems += check_classes(workdirs)
    common, wrong = choose_folds(workdirs, folds)
    problems += wrong
    clips: dict[int, dict[str, Clips]] = {fold: {} for fold in common}
    for name in names:
        absent = check_present(workdirs, common, name)
        problems += absent
        if not absent:
            for fold in common:
                clips[fold][name] = gather(workdirs, fold, name, problems)
    for fold, by_name in clips.items():
        if len(by_name) == 2:
            shared = set(by_name[TEST].filename) & set(by_name[VALIDATION].filename)
            if shared:
                problems.append(
                    f"fold {fold}: clips both in {TEST} and {VALIDATION}, so weights "
                    f"would be chosen on what they are tested on: "
                    f"{named(sorted(shared))}; train again"
                )
    if problems:
        raise InputError("\n  ".join(["these can't be averaged:", *problems]))
    return workdirs, clips


def choose_weights(
    members: Sequence[np.ndarray], label: np.ndarray, average: Average, task: Task
) -> np.ndarray:
    """The weights whose average has the least cross-entropy.

    It is convex in the weights for both averages: of logits, a log-sum-exp of linear
    functions; of probabilities, the negative logarithm of a linear one.

    Args:
        members: logits, one array [N, classes] a member, of the same clips, which are
            clips that the weights may see.
        label: [N].
        average: as `Task.average` gives it.
        task: of the labels.

    Returns:
        [members], none below 0, their sum 1.
    """
    count = len(members)

    def loss(weights: np.ndarray) -> float:
        return task.scores(average(members, weights.tolist()), label)["loss"]

    # Equal weights to start from, so that equal members keep them.
    found = optimize.minimize(
        loss,
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints=[{"type": "eq", "fun": lambda weights: weights.sum() - 1}],
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    if not found.success:
        raise InputError(
            f"no weights could be chosen ({found.message}); take --weights=equal"
        )
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()


def score_fold(
    test: Clips, validation: Clips | None, task: Task, average: Average
) -> dict[str, Any]:
    """The scores of one fold: see `ensemble`."""
    members = test.members(average)
    weights = None
    if validation is not None:
        weights = choose_weights(
            validation.members(average), validation.label, average, task
        ).tolist()

    def score(logits: np.ndarray) -> float:
        return task.scores(logits, test.label)[task.metric]

    by_workdir = [
        {
            "weight": 1 / len(members) if weights is None else weights[i],
            "single": float(np.mean([score(run) for run in test.logits[i]])),
            "ensemble": score(member),
        }
        for i, member in enumerate(members)
    ]
    scores = task.scores(average(members, weights), test.label)
    best = scores[task.metric]
    single = float(np.mean([workdir["single"] for workdir in by_workdir]))
    return {
        "num_clips": scores["num_clips"],
        "workdirs": by_workdir,
        "single": single,
        "ensemble": best,
        "loss": scores["loss"],
        "gain": best - single,
    }


def over_folds(rows: Sequence[Mapping[str, Any]], more: str) -> dict[str, Any]:
    """Mean and deviation of `single`, `ensemble` and one thing more."""
    return {
        kind: tasks.spread([row[kind] for row in rows])
        for kind in ("single", "ensemble", more)
    }


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
        `gain`, ensemble less single. `summary` has mean and standard deviation over
        the folds. Scores are shares of 1.

    Raises:
        InputError: if the workdirs can't be averaged; says all that is wrong.
    """
    names = [TEST] if weights == "equal" else [TEST, VALIDATION]
    workdirs, clips = open_all(paths, folds, names)
    scored = []
    for fold, by_name in clips.items():
        task = workdirs[0].task
        scores = score_fold(
            by_name[TEST], by_name.get(VALIDATION), task, task.average(average)
        )
        for workdir, entry in zip(workdirs, scores["workdirs"], strict=True):
            entry["runs"] = workdir.runs[fold]
        scored.append({"fold": fold, **scores})
    return {
        "average": average,
        "weights": weights,
        "classes": workdirs[0].classes,
        "workdirs": [{"workdir": w.path, "model": w.model} for w in workdirs],
        "folds": scored,
        "summary": {
            "workdirs": [
                over_folds([fold["workdirs"][i] for fold in scored], "weight")
                for i in range(len(workdirs))
            ],
            **over_folds(scored, "gain"),
        },
    }


def table(results: Mapping[str, Any]) -> str:
    """What `ensemble` gives as lines of text."""
    numbers = range(1, len(results["workdirs"]) + 1)
    weighted = results["weights"] != "equal"
    lines = [
        f"{i}  {entry['workdir']}  ({entry['model']})"
        for i, entry in zip(numbers, results["workdirs"], strict=True)
    ]
    header = [f"{'fold':>6}"]
    for i in numbers:
        header += [f"{f'single {i}':>9}", f"{f'ensemble {i}':>11}"]
        header += [f"{f'weight {i}':>9}"] * weighted
    lines.append("  ".join([*header, f"{'single':>7}", f"{'ensemble':>8}", "   gain"]))

    def line(name: object, row: Mapping[str, Any]) -> str:
        cells = [f"{name:>6}"]
        for entry in row["workdirs"]:
            cells += [f"{entry['single']:>9.2%}", f"{entry['ensemble']:>11.2%}"]
            cells += [f"{entry['weight']:>9.3f}"] * weighted
        cells += [f"{row['single']:>7.2%}", f"{row['ensemble']:>8.2%}"]
        return "  ".join([*cells, f"{100 * row['gain']:>+7.2f}"])

    lines += [line(fold["fold"], fold) for fold in results["folds"]]
    summary = results["summary"]
    for kind in ("mean", "std"):
        row = {name: summary[name][kind] for name in ("single", "ensemble", "gain")}
        row["workdirs"] = [
            {name: value[kind] for name, value in entry.items()}
            for entry in summary["workdirs"]
        ]
        lines.append(line(kind, row))
    return "\n".join(lines)


def define_flags() -> None:
    """Defines the flags, only for the command: importing this module brings none."""
    flags.DEFINE_enum("average", "logits", list(tasks.KINDS), "What is averaged.")
    flags.DEFINE_enum(
        "weights", "equal", WEIGHTS, "Equal, or chosen on the validation clips."
    )
    flags.DEFINE_list("folds", None, "The folds, such as 1,2; default all.")
    flags.DEFINE_string("out", None, "Where the scores go, as JSON; default nowhere.")


def main(argv: Sequence[str]) -> None:
    """Averages the workdirs named, prints the scores and writes them."""
    paths, options = argv[1:], flags.FLAGS
    try:
        folds = options.folds and [int(fold) for fold in options.folds]
    except ValueError:
        command.stop(f"--folds is {','.join(options.folds)}; give numbers, such as 1,2")
    with command.one_sentence(options.out or "the workdirs"):
        results = ensemble(
            paths, average=options.average, weights=options.weights, folds=folds
        )
        print(table(results))
        if options.out:
            files.write_json(options.out, results)
            print(f"scores  {options.out}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
