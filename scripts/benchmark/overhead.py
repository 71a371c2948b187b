"""What checkpoints and metrics add to a training."""

import argparse
import collections
import contextlib
import functools
import importlib
import math
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np
from etils import epath

from audiojax.config import Config
from audiojax.datasets import Recordings, batches
from audiojax.training import trainer as trainers
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.loop import STEPS_AHEAD
from audiojax.training.progress import Scalars
from audiojax.workdir import Run

CHECKPOINT_SECONDS = 60.0  # as in configs/common.py


def print_overhead(
    config: Config, recordings: Recordings, args: argparse.Namespace, scratch: Any
) -> None:
    """A table: what our training takes beyond a bare loop of the same steps.

    All start from the weights' file and end with the predictions of the test clips.
    Processor time counts all threads, and other work on the machine disturbs it less.
    Least disturbed is the share of a run in which its loop stands still in a call that
    saves, writes metrics, or waits for the last save; what is written behind the
    training is not part of it.
    """
    # What is imported once in a process is not counted.
    importlib.import_module("clu.metric_writers")
    trainer = trainers.Trainer(config, trainers.open_data(config, recordings))
    run = Run(fold=config.sweep.folds[0], seed=0)
    calls: list[tuple[str, float]] = []

    def ours(seconds: float) -> None:
        calls.clear()
        config.checkpoint_seconds = seconds
        with tempfile.TemporaryDirectory(dir=scratch) as workdir:
            trainer.train([run], epath.Path(workdir))

    contenders = {
        "bare": lambda: bare_training(trainer, run),
        "last": lambda: ours(math.inf),
        "all": lambda: ours(args.checkpoint_seconds),
    }
    seconds: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    still: list[dict[str, float]] = []
    with contextlib.ExitStack() as patches:
        for owner, name in (
            (Checkpoints, "save"),
            (Checkpoints, "__exit__"),
            (Scalars, "write"),
        ):
            timed = _timed(getattr(owner, name), calls)
            patches.enter_context(mock.patch.object(owner, name, timed))
        bare_training(trainer, run)  # compiles
        for _ in range(args.rounds):
            for name, work in contenders.items():
                start = time.perf_counter(), time.process_time()
                work()
                seconds["wall", name].append(time.perf_counter() - start[0])
                seconds["cpu", name].append(time.process_time() - start[1])
                print(f"{name}: {seconds['wall', name][-1]:.1f} s", file=sys.stderr)
            took: dict[str, float] = {"saves": sum(name == "save" for name, _ in calls)}
            for name, duration in calls:
                took[name] = took.get(name, 0) + duration
            still.append(took)
    steps = config.epochs * trainer.feed.steps_per_epoch(run.fold)
    every = f"one every {args.checkpoint_seconds:g} s and the last"
    print(
        f"\n{config.model.name}, {recordings.info.name}, {steps} steps of "
        f"{config.batch_size} images, median of {args.rounds} rounds\n\n"
        "| | bare, s | metrics and the last checkpoint add "
        f"| metrics and checkpoints add, {every} |\n" + "|---" * 4 + "|"
    )
    for kind, words in {"wall": "time", "cpu": "processor time"}.items():
        rounds = np.array([seconds[kind, name] for name in contenders])
        last, all_ = np.median(rounds[1:] / rounds[0] - 1, axis=1)
        print(f"| {words} | {np.median(rounds[0]):.1f} | {last:+.1%} | {all_:+.1%} |")
    wall = np.array(seconds["wall", "all"])
    saves, save, end, write = (
        np.array([took[name] for took in still])
        for name in ("saves", "save", "__exit__", "write")
    )
    share = np.median((save + end + write) / wall)
    often = np.median(write / wall + (save + end) / saves / CHECKPOINT_SECONDS)
    print(
        f"\nThe loop stands still for {share:.1%} of the run ({saves.mean():.1f} "
        f"checkpoints: {np.median(save / saves):.3f} s each, {np.median(end):.2f} s at "
        f"the end; metrics: {np.median(write / wall):.2%}). Computed from it for one "
        f"checkpoint every {CHECKPOINT_SECONDS:g} s: {often:.2%}."
    )


def _timed(
    method: Callable[..., Any], calls: list[tuple[str, float]]
) -> Callable[..., Any]:
    """The method, which also notes its name and the seconds of each call."""

    @functools.wraps(method)
    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args)
        finally:
            calls.append((method.__name__, time.perf_counter() - start))

    return timed


def bare_training(trainer: trainers.Trainer, run: Run) -> None:
    """The steps of `Trainer.train` and its predictions, and nothing else."""
    config, data, split = trainer.config, trainer.data, trainer.feed.split(run.fold)
    program = trainer.programs.get(1, trainer.feed.steps_per_epoch(run.fold))
    state, pending = trainer.initial_state(run), collections.deque()
    key = jax.random.key(run.seed)
    for epoch in range(config.epochs):
        for batch in batches.train_batches(
            data.recordings,
            split.train,
            batch_size=config.batch_size,
            policy=trainer.classifier.clip_policy,
            seed=run.seed,
            epoch=epoch,
            image=data.images,
        ):
            state, metrics = program.train_step(
                state, program.spread.batch([batch]), key
            )
            pending.append(metrics)
            if len(pending) > STEPS_AHEAD:
                jax.block_until_ready(pending.popleft())
    trainer.evaluator.predictions(state.model_variables, split.test)
