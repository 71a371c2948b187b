"""Measures speed beside the libraries that do the same work, in one run.

    python -m scripts.benchmark features
    python -m scripts.benchmark features --clips ../esc10/audio --preset esc50
    python -m scripts.benchmark models --models resnet50 --batch 16
    python -m scripts.benchmark train
    python -m scripts.benchmark data --source_dir ../esc10

The contenders take turns, so that a busy machine slows all alike: compare the
ratios, and the numbers only on a machine that does nothing else. PyTorch is not one
of the project's dependencies; where it can't be imported it is left out.
"""

import argparse
import sys
from pathlib import Path

from audiojax import models
from audiojax.errors import InputError
from audiojax.features import PRESETS
from scripts.benchmark.data import data
from scripts.benchmark.features import features
from scripts.benchmark.models import compare_models
from scripts.benchmark.train import train_overhead


def main() -> None:
    """Parses the command line and runs one benchmark."""
    parser = argparse.ArgumentParser(description="Measures speed, in one run.")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("features", help=features.__doc__)
    command.add_argument("--clips", type=Path, help="folder with audio; default: noise")
    command.add_argument("--preset", choices=PRESETS, default="esc50")
    command.add_argument("--batch", type=int, default=16)
    command.add_argument("--repeats", type=int, default=7)
    command.set_defaults(run=features)

    command = commands.add_parser("models", help=compare_models.__doc__)
    command.add_argument(
        "--models",
        nargs="+",
        choices=models.MODELS,
        default=["resnet50", "densenet201", "efficientnet_lite0"],
    )
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=compare_models)

    command = commands.add_parser("data", help=data.__doc__)
    command.add_argument("--source_dir", type=Path, required=True, help="ESC-10")
    command.add_argument("--data_dir", help="for temporary files")
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=data)

    command = commands.add_parser("train", help=train_overhead.__doc__)
    command.add_argument("--source", type=Path, help="ESC-10; default: made sounds")
    command.add_argument("--data-dir", type=Path, help="prepared data; default: none")
    command.add_argument(
        "--parts",
        nargs="+",
        choices=["overhead", "data"],
        default=["overhead", "data"],
    )
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--rounds", type=int, default=2)
    command.add_argument("--checkpoint-seconds", type=float, default=5)
    command.add_argument("--data-epochs", type=int, default=3)
    command.add_argument("--step-ms", type=float, default=50)
    command.set_defaults(run=train_overhead)

    args = parser.parse_args()
    try:
        args.run(args)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
