"""Which of a workdir's runs are used."""

from __future__ import annotations

from collections.abc import Sequence

from audiojax.errors import InputError
from audiojax.workdir import Run, Workdir, named


def choose(
    workdir: Workdir,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    *,
    unfinished: bool = False,
) -> list[Run]:
    """The finished runs of the given folds and seeds, by fold and seed.

    Args:
        workdir: whose runs they are.
        folds: which; None for all.
        seeds: which; None for all.
        unfinished: leave out those that are not finished, where others are.

    Raises:
        InputError: if a fold or seed is not there, or runs of them are not finished
            and that was not allowed, or none is; says which runs there are.
    """
    there = told(workdir)
    wanted = [
        run
        for run in sorted([*workdir.runs, *workdir.unfinished])
        if (folds is None or run.fold in folds) and (seeds is None or run.seed in seeds)
    ]
    absent = [f"fold {n}" for n in folds or () if n not in {r.fold for r in wanted}]
    absent += [f"seed {n}" for n in seeds or () if n not in {r.seed for r in wanted}]
    if absent:
        raise InputError(f"{there}; there is no {named(absent)}; choose others")
    finished = [run for run in wanted if run in workdir.runs]
    coming = [run.name for run in wanted if run not in workdir.runs]
    if coming and not (unfinished and finished):
        raise InputError(
            f"{there}; {named(coming)} can't be used yet: go on with the training "
            "command, or choose other folds and seeds; audiojax.load leaves them out "
            "with unfinished=True, and its commands with --unfinished"
        )
    return finished


def told(workdir: Workdir) -> str:
    """The workdir and which of its runs are finished, to begin an error with."""
    text = f"{workdir.path}: finished: {named(r.name for r in workdir.runs) or 'none'}"
    if workdir.unfinished:
        text += f"; not finished: {named(run.name for run in workdir.unfinished)}"
    return text
