"""What training costs beside its steps."""

import argparse
import tempfile
from pathlib import Path

from etils import epath

from audiojax.training import sweep
from configs import demo, esc10_efficientnet
from scripts.benchmark.common import environment
from scripts.benchmark.frozen import print_frozen
from scripts.benchmark.overhead import print_overhead
from scripts.benchmark.waits import print_waits


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--source_dir", type=Path, help="ESC-10; default: made sounds")
    parser.add_argument("--data_dir", type=Path, help="prepared data; default: none")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["overhead", "waits", "frozen"],
        default=["overhead", "waits"],
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--checkpoint_seconds", type=float, default=5)
    parser.add_argument("--data_epochs", type=int, default=3)
    # As many as ESC-50 has without the fold that is held out.
    parser.add_argument("--epoch_clips", type=int, default=1600)
    parser.add_argument("--step_ms", type=float, default=50)


def run(args: argparse.Namespace) -> None:
    """What checkpoints and metrics add, waiting for data, and what freezing saves."""
    print(environment("jax", "orbax.checkpoint"))
    with tempfile.TemporaryDirectory() as scratch:
        config = (esc10_efficientnet if args.source_dir else demo).get_config()
        config.data.source_dir = args.source_dir and str(args.source_dir)
        config.data.data_dir = str(args.data_dir or scratch)
        config.epochs, config.evaluate_every_epochs = args.epochs, 0
        if "frozen" in args.parts:
            print_frozen(config, args)
        if args.parts == ["frozen"]:
            return
        recordings = sweep.load(config)
        if "overhead" in args.parts:
            print_overhead(config, recordings, args, epath.Path(scratch))
        if "waits" in args.parts:
            print_waits(recordings, args, Path(scratch))
