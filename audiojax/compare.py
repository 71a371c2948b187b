"""Tells how alike two trained networks are, layer by layer.

python -m audiojax.compare WORKDIR [WORKDIR] SOUND [SOUND ...]
    [--folds=1] [--seeds=0,1] [--layers=blocks.1,conv_head]

Two runs are compared: one of each workdir, or two of the same. Both hear the same
sounds, which are given as for `audiojax.predict`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np
from absl import app, flags

from audiojax import command, comparison, predict, runs
from audiojax.classifier import Classifier
from audiojax.errors import InputError
from audiojax.inference import Clip, evaluated_rows
from audiojax.workdir import Run, Workdir, named

Chosen = tuple[Workdir, Run]


def two_runs(workdirs: Sequence[str]) -> tuple[Chosen, Chosen]:
    """The runs that the arguments and flags choose.

    Raises:
        InputError: if there are not two, or they can't be compared.
    """
    opened = [Workdir(path) for path in workdirs]
    folds, seeds = predict.numbers("folds"), predict.numbers("seeds")
    allowed = flags.FLAGS.unfinished
    chosen = [
        (workdir, run)
        for workdir in opened
        for run in runs.choose(workdir, folds, seeds, unfinished=allowed)
    ]
    if len(chosen) != 2 or len(opened) > 2:
        found = [f"{run.name} of {workdir.path}" for workdir, run in chosen]
        raise InputError(
            f"two runs are compared, and these were chosen: {named(found)}; choose one "
            "of each of two workdirs, or two of one, with --folds and --seeds"
        )
    first, other = chosen
    comparison.check_same(first[0], other[0])
    return first, other


def images(sounds: Sequence[Clip], classifier: Classifier) -> np.ndarray:
    """The log-mel images [N, mel, frames, C] that evaluation makes of sounds.

    Raises:
        InputError: for the first sound that can't be used.
    """
    to_image, found = jax.jit(classifier.image), []
    for sound in sounds:
        _, rows, own = evaluated_rows(sound, classifier)
        length = np.array([own], np.int32)
        found += [np.asarray(to_image(row[None], length)[0]) for row in rows]
    return np.stack(found)


def table(found: comparison.Comparison) -> str:
    """Lines for a reader."""
    rows = [["layer", "CKA", "SVCCA", "change of weights"]]
    for row in found.rows():
        shares = (row[name] for name in ("cka", "correlation", "change"))
        rows.append([str(row["layer"]), *(f"{share:.3f}" for share in shares)])
    return command.columns(rows)


def run(workdirs: Sequence[str], sounds: Sequence[str]) -> bool:
    """Compares what the arguments name, and prints the table.

    Raises:
        InputError: if a sound or a run can't be used, or there are too few sounds.
    """
    given = predict.named_sounds(workdirs, sounds)
    if problems := [clip for clip in given if isinstance(clip, InputError)]:
        raise problems[0]
    first, other = two_runs(workdirs)
    classifier, layers = first[0].classifier, flags.FLAGS.layers
    clips = [clip for clip in given if not isinstance(clip, InputError)]
    made = images(clips, classifier)
    before, after = (workdir.variables(run) for workdir, run in (first, other))
    print(table(comparison.compare(classifier, before, after, made, layers)))
    return True


def define_flags() -> None:
    """Defines the flags, only for the command: importing this module brings none."""
    flags.DEFINE_list(
        "layers", None, "Names of stages and of layers inside of them; default stages."
    )
    predict.define_run_flags()


def main(argv: Sequence[str]) -> None:
    """Compares what the arguments name."""
    predict.use(run, argv)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=functools.partial(command.parse, None))
