"""What training costs beside its steps."""

import argparse
import tempfile
from pathlib import Path

from etils import epath

from audiojax.training import sweep
from configs import demo, esc10_efficientnet
from scripts.benchmark.common import environment
from scripts.benchmark.overhead import print_overhead
from scripts.benchmark.waits import print_waits


def train_overhead(args: argparse.Namespace) -> None:
    """What checkpoints and metrics add to a training, and how it waits for data."""
    print(environment("jax", "orbax.checkpoint"))
    with tempfile.TemporaryDirectory() as scratch:
        config = (esc10_efficientnet if args.source else demo).get_config()
        config.data.source_dir = args.source and str(args.source)
        config.data.data_dir = str(args.data_dir or scratch)
        config.epochs, config.evaluate_every_epochs = args.epochs, 0
        recordings = sweep.load(config)
        if "overhead" in args.parts:
            print_overhead(config, recordings, args, epath.Path(scratch))
        if "data" in args.parts:
            print_waits(recordings, args, Path(scratch))
