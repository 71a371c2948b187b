"""Measures speed beside the libraries that do the same work, in one run.

    python -m scripts.benchmark features --clips ESC10_DIR/audio --preset esc50
    python -m scripts.benchmark augment --clips ESC10_DIR/audio
    python -m scripts.benchmark models --models resnet50 --batch 16
    python -m scripts.benchmark data --source_dir ESC10_DIR
    python -m scripts.benchmark train
    python -m scripts.benchmark recipe --source_dir ESC10_DIR
    python -m scripts.benchmark sums
    python -m scripts.benchmark predict --minutes 60
    python -m scripts.benchmark export --models efficientnet_lite0,resnet50
    python -m scripts.benchmark SUBJECT --help

The contenders take turns, so that a busy machine slows all alike: compare the
ratios, and the numbers only on a machine that does nothing else. PyTorch is not one
of the project's dependencies; where it can't be imported it is left out.
"""

import argparse
import importlib
import sys

from audiojax import memory
from audiojax.errors import InputError

SUBJECTS = (
    "features",
    "augment",
    "models",
    "data",
    "train",
    "recipe",
    "sums",
    "predict",
    "export",
)


def main() -> None:
    """Runs the benchmark of one subject, and imports what that one needs alone."""
    memory.keep_freed()  # as the commands do
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("options", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    subject = importlib.import_module(f"scripts.benchmark.{args.subject}")
    options = argparse.ArgumentParser(
        prog=f"{parser.prog} {args.subject}", description=subject.run.__doc__
    )
    subject.add_options(options)
    try:
        subject.run(options.parse_args(args.options))
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
