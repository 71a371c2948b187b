"""Compares finished sweeps by the clips that they held out to choose by.

    python -m scripts.ablation runs/recipe runs/without_mixup …

Prints a Markdown table with a line a workdir. All must be trained with
`config.sweep.validation`; the test folds are not looked at.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from audiojax.errors import InputError
from audiojax.workdir import VALIDATION, Run, Workdir, named

HEAD = """\
| | runs | accuracy | cross-entropy | clips more than the first |
|---|---|---|---|---|"""


def main() -> None:
    """Prints the table, or says in a sentence why there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR")
    try:
        print(table(parser.parse_args().workdirs))
    except InputError as error:
        sys.exit(str(error))


def table(paths: Sequence[str]) -> str:
    """A Markdown table of the workdirs' validation scores.

    Accuracy in percent, mean and standard deviation over the runs, which are folds and
    seeds; cross-entropy in nats, mean; and how many more clips than the first workdir a
    run of it classifies rightly, mean and standard error over the runs that both have,
    so that what makes one fold harder than another does not count.

    Raises:
        InputError: for what is no workdir, or one without validation clips.
    """
    found = [(path, scores(Workdir(path))) for path in paths]
    _, first = found[0]
    lines = [HEAD]
    for path, runs in found:
        shares = [100 * right / count for right, count, _ in runs.values()]
        losses = [loss for *_, loss in runs.values()]
        cells = [
            path.rstrip("/").rpartition("/")[2],
            str(len(runs)),
            f"{np.mean(shares):.2f} ± {np.std(shares):.2f}",
            f"{np.mean(losses):.3f}",
            _more(runs, first) if runs is not first else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def scores(workdir: Workdir) -> dict[Run, tuple[int, int, float]]:
    """For each finished run its right validation clips, all of them, and the loss.

    Raises:
        InputError: if there is no finished run, or one held out nothing.
    """
    if lacking := workdir.lacking(VALIDATION, workdir.folds):
        raise InputError(
            f"{workdir.path}: no validation clips in {named(r.name for r in lacking)}; "
            "train with --config.sweep.validation=fold"
        )
    if not workdir.runs:
        raise InputError(f"{workdir.path}: no finished run; train first")
    found = {}
    for run in workdir.runs:
        held = workdir.predictions(run, VALIDATION)
        score = workdir.task.scores(held.logits, held.label)
        right = round(score[workdir.task.metric] * len(held.filename))
        found[run] = right, len(held.filename), score["loss"]
    return found


def _more(
    ours: dict[Run, tuple[int, int, float]], theirs: dict[Run, tuple[int, int, float]]
) -> str:
    both = [ours[run][0] - theirs[run][0] for run in ours if run in theirs]
    if len(both) < 2:
        return "too few runs in common"
    return f"{np.mean(both):+.2f} ± {np.std(both, ddof=1) / np.sqrt(len(both)):.2f}"


if __name__ == "__main__":
    main()
