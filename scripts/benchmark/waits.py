"""How long training waits for data."""

import argparse
import collections
import concurrent.futures
import dataclasses
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiojax.clips import ClipPolicy
from audiojax.datasets import Recordings, batches, from_arrays
from audiojax.training.loop import STEPS_AHEAD


def print_waits(
    recordings: Recordings, args: argparse.Namespace, scratch: Path
) -> None:
    """A table: how long a device of a given speed waits for batches of 32."""
    if args.source_dir is None:
        rate, random = 44100, np.random.default_rng(0)
        count = min(400, args.epoch_clips)
        noise = random.integers(-3000, 3000, (count, 5 * rate), np.int16)
        recordings = from_arrays(noise, np.arange(count) % 10, rate)
    shape = (len(recordings), 128, 250, 3)
    file = scratch / "images.npy"
    images = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    images[:] = 1
    images.flush()
    image = {"audio": None, "spectrogram": np.load(file, mmap_mode="r")}
    drivers = {"threads": True}
    if importlib.util.find_spec("tensorflow"):
        drivers["tf.data"] = False
    policy = ClipPolicy("pad", 5 * recordings.info.sample_rate)
    clips = np.resize(np.arange(len(recordings)), args.epoch_clips)
    found: dict[tuple[Any, ...], list[tuple[float, ...]]] = {}
    for round_ in range(args.rounds + 1):
        for stage, driver in itertools.product(image, drivers):
            source = dataclasses.replace(recordings, in_memory=drivers[driver])

            def read(epoch: int, source=source, stage=stage) -> Iterator[Any]:
                return batches.train_batches(
                    source,
                    clips,
                    batch_size=32,
                    policy=policy,
                    seed=0,
                    epoch=epoch,
                    image=image[stage],
                )

            steps = batches.num_batches(len(clips), 32)
            shares = waits(read, args.data_epochs, steps, args.step_ms / 1000)
            if round_ > 0:
                found.setdefault((stage, driver), []).append(shares)
    print(
        f"\n{recordings.info.name}, {args.data_epochs} epochs of {args.epoch_clips} "
        f"clips of 5 s, {recordings.info.sample_rate} Hz, batch 32, a step of "
        f"{args.step_ms:g} ms, median of {args.rounds} rounds\n\n"
        "| stage | fetched by | device waits "
        "| of that, for an epoch's first batch | loop waits |\n" + "|---" * 5 + "|"
    )
    for (stage, driver), rounds in found.items():
        shares = " | ".join(f"{share:.1%}" for share in np.median(rounds, axis=0))
        print(f"| {stage} | {driver} | {shares} |")


def waits(
    read: Callable[[int], Iterator[Any]], epochs: int, steps: int, step: float
) -> tuple[float, float, float]:
    """Trains on a device that only sleeps, as the training loop does.

    Args:
        read: epoch -> its batches, which are fetched from then on.
        epochs: how many.
        steps: of each.
        step: seconds that the device takes for one.

    Returns:
        Shares of the time from the first batch on: that the device did nothing, that
        it did so before the first step of an epoch, and that the loop spent asking
        for a batch. The run's first batch is left out: it comes once a run.
    """
    busy: list[tuple[float, float]] = []

    def work() -> None:
        start = time.perf_counter()
        time.sleep(step)
        busy.append((start, time.perf_counter()))

    asked, pending = 0.0, collections.deque()
    with concurrent.futures.ThreadPoolExecutor(1) as device:
        following = read(0)
        for epoch in range(epochs):
            stream = following
            for number in range(steps):
                start = time.perf_counter()
                next(stream)
                if epoch or number:
                    asked += time.perf_counter() - start
                if number == steps - 1 and epoch < epochs - 1:
                    following = read(epoch + 1)
                pending.append(device.submit(work))
                if len(pending) > STEPS_AHEAD:
                    pending.popleft().result()
            # The loop reads the metrics of all steps at the end of an epoch.
            while pending:
                pending.popleft().result()
    starts, ends = np.array(busy).T
    total = ends[-1] - starts[0]
    idle = starts[1:] - ends[:-1]
    return idle.sum() / total, idle[steps - 1 :: steps].sum() / total, asked / total
