"""What it costs that everything a number is made of is checked when it is opened."""

import argparse
import tempfile

import numpy as np
from etils import epath

from audiojax import files
from audiojax import workdir as workdirs
from audiojax.clips import ClipPolicy
from audiojax.datasets import Info
from audiojax.datasets.layouts import synthetic
from audiojax.datasets.store.images import image_cache
from audiojax.training import results
from audiojax.workdir import Entry, Run, Workdir
from configs import common
from scripts.benchmark.common import OURS, environment, take_turns

IMAGE = (128, 250, 3)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--clips", type=int, default=400, help="of a fold, and images")


def run(args: argparse.Namespace) -> None:
    """Opening a finished sweep of 25 runs, and the images of as many clips as ESC-10's.

    The sweep's predictions have the size of whole ESC-50's.
    """
    print(environment("numpy"))
    with tempfile.TemporaryDirectory() as folder:
        path = epath.Path(folder)
        fill(path, args.clips)

        def open_sweep() -> None:
            opened = Workdir(path)
            for found in opened.runs:
                opened.predictions(found)

        seconds = take_turns({OURS: open_sweep}, args.repeats)[OURS]
        print(f"{len(Workdir(path).runs)} runs, sums included: {seconds:.3f} s")
        recordings = synthetic.create(num_folds=1, clips_per_class=args.clips // 10)
        policy = ClipPolicy("pad", recordings.num_samples, 1)

        def open_images() -> np.ndarray:
            return image_cache(
                recordings,
                key="made",
                shape=IMAGE,
                compute=lambda batch: np.ones((len(batch["mask"]), *IMAGE), "f4"),
                policy=policy,
                batch_size=32,
                cache_dir=folder,
            )

        size = open_images().nbytes / 1e6
        seconds = take_turns({OURS: open_images}, args.repeats)[OURS]
        print(f"{len(recordings)} images, {size:.0f} MB: {seconds:.3f} s")


def fill(path: epath.Path, num_clips: int) -> None:
    """Writes a workdir of five folds and five seeds, with predictions of 50 classes."""
    config = common.get_config()
    config.sweep.folds = config.sweep.seeds = (1, 2, 3, 4, 5)
    random = np.random.default_rng(0)
    for fold in config.sweep.folds:
        for seed in config.sweep.seeds:
            run = Run(fold, seed)
            arrays = {
                "logits": random.normal(size=(num_clips, 50)).astype("f4"),
                "label": np.arange(num_clips) % 50,
                "filename": np.array([f"{fold}-{i}.wav" for i in range(num_clips)]),
            }
            predictions = path / run.name / workdirs.TEST
            files.write_arrays(predictions, arrays)
            sums = {workdirs.TEST: files.sha256(predictions)}
            entry = Entry(run, 1, 0, 1.0, final={}, files=sums)
            files.write_sealed(path / run.name / workdirs.RESULT, entry.to_json())
    info = Info("made", tuple(map(str, range(50))), 44100, ())
    results.Results(config, info, path).write()
