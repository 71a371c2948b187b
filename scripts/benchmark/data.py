"""Speed of what prepares data and reads them."""

import argparse
import collections
import concurrent.futures
import functools
import importlib
import os
import tempfile
import time
from pathlib import Path

import librosa
import numpy as np

from audiojax import datasets
from audiojax.clips import ClipPolicy
from audiojax.datasets import Settings, batches
from audiojax.features import PRESETS
from scripts.benchmark.common import OURS, environment, print_rates, take_turns


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--source_dir", type=Path, required=True, help="ESC-10")
    parser.add_argument("--data_dir", help="for temporary files")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)


def run(args: argparse.Namespace) -> None:
    """Preparing ESC-10, opening it again, and batches of both stages; librosa beside.

    What librosa decodes is not stored. TensorFlow is imported before the clock starts.
    """
    importlib.import_module("tensorflow")
    print(environment("tensorflow", "tensorflow_datasets", "librosa"))
    rate = PRESETS["esc50"].sample_rate
    paths = sorted((args.source_dir / "audio").iterdir())

    def load(store: str) -> datasets.Recordings:
        settings = Settings(
            source_dir=str(args.source_dir), data_dir=store, sample_rate=rate
        )
        return datasets.load("esc10", settings)

    def prepare() -> None:
        with tempfile.TemporaryDirectory(dir=args.data_dir) as store:
            load(store)

    def decode(path: Path) -> np.ndarray:
        return librosa.load(path, sr=rate)[0]

    def decode_in_threads() -> None:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            collections.deque(pool.map(decode, paths), maxlen=0)

    with tempfile.TemporaryDirectory(dir=args.data_dir) as store:
        start = time.perf_counter()
        recordings = load(store)
        first = time.perf_counter() - start
        again = take_turns({OURS: lambda: load(store)}, args.repeats)[OURS]
        count, batch = len(recordings), args.batch
        print(f"{count} clips, {rate} Hz, of {len(paths)} files")
        print(f"first start of the process: {first:.2f} s, {count / first:.0f} clips/s")
        print(f"second start: {again:.3f} s")
        seconds = take_turns(
            {
                OURS: prepare,
                "librosa, threads": decode_in_threads,
                "librosa": lambda: [decode(path) for path in paths],
            },
            args.repeats,
        )
        rates = {name: len(paths) / duration for name, duration in seconds.items()}
        print_rates(rates, "clips prepared per second")

        images = np.lib.format.open_memmap(
            Path(store) / "images.npy", "w+", np.float32, (count, 128, 250, 3)
        )
        images[:] = 1
        stream = functools.partial(
            batches.train_batches,
            recordings,
            np.arange(count),
            batch_size=batch,
            policy=ClipPolicy("pad", recordings.num_samples),
            seed=0,
            epoch=0,
        )
        seconds = take_turns(
            {
                OURS: lambda: collections.deque(stream(), maxlen=0),
                "audiojax, images": lambda: collections.deque(
                    stream(image=images), maxlen=0
                ),
                "librosa": lambda: [decode(path) for path in paths[:batch]],
            },
            args.repeats,
        )
        number = {name: batches.num_batches(count, batch) for name in seconds}
        number["librosa"] = 1
        print_rates(
            {n: number[n] / s for n, s in seconds.items()}, "batches per second"
        )
