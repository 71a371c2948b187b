"""Speed of the paper's augmentation: pitch shift, then time stretch."""

import argparse
import concurrent.futures
import functools
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import librosa
import numpy as np
import optax

from audiojax import augment, models
from audiojax.augment import Augment
from audiojax.augment.vocoder import time_stretch_and_pitch_shift
from audiojax.classifier import Classifier
from audiojax.clips import ClipPolicy
from audiojax.features import PRESETS
from audiojax.task import TASKS
from audiojax.training import steps
from scripts.benchmark.common import OURS, environment, print_rates, take_turns
from scripts.benchmark.features import read_clips

PAPER = Augment(pitch_shift=(-2, 2), time_stretch=(0.9, 1.2))
SEMITONES = np.arange(PAPER.pitch_shift[0], PAPER.pitch_shift[1] + 1)
RATES = PAPER.time_stretch
SETTINGS = PRESETS["esc50"]
CLASSES = 50


def draws(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rates and semitones [count], spread evenly and in no order."""
    random = np.random.default_rng(0)
    rates = random.permutation(np.linspace(RATES[0], RATES[1], count))
    semitones = random.permutation(np.resize(SEMITONES, count))
    return rates.astype(np.float32), semitones.astype(np.float32)


def librosa_changed(clip: np.ndarray, rate: float, semitones: float) -> np.ndarray:
    """What `time_stretch_and_pitch_shift` does to a clip, by librosa."""
    if semitones:
        clip = librosa.effects.pitch_shift(
            clip, sr=SETTINGS.sample_rate, n_steps=semitones
        )
    return librosa.effects.time_stretch(clip, rate=rate)


def train_step(clips: np.ndarray, name: str, settings: Augment) -> Callable[[], Any]:
    """A training step on the clips' audio, every second one of which is changed."""
    classifier = Classifier(
        network=models.create(name, CLASSES),
        log_mel=SETTINGS,
        classes=tuple(map(str, range(CLASSES))),
        clip_policy=ClipPolicy("pad", clips.shape[1]),
        weights=None,
        task=TASKS["single_label"],
    )
    optimizer = optax.adam(1e-4)
    state = steps.create_state(classifier.init(jax.random.key(0)), optimizer)
    made = steps.make_train_step(
        classifier, optimizer, changes=augment.changes(settings)
    )
    step = jax.jit(made, donate_argnums=0)
    batch = jax.device_put(
        {
            "audio": clips,
            "label": np.arange(len(clips), dtype=np.int32) % CLASSES,
            "mask": np.ones(len(clips), np.float32),
            "changed": np.arange(len(clips)) % 2 == 0,
        }
    )

    def work():
        nonlocal state
        state, _ = step(state, batch, jax.random.key(0))
        jax.block_until_ready(state)

    return work


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--clips", type=Path, help="folder with audio; default: noise")
    parser.add_argument("--model", choices=models.MODELS, default="efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)


def run(args: argparse.Namespace) -> None:
    """Clips per second of the paper's augmentation, ours and librosa's, and a step."""
    clips = read_clips(args.clips, SETTINGS, args.batch)
    rates, semitones = draws(len(clips))
    length = np.full(len(clips), clips.shape[1], np.int32)
    ours = functools.partial(
        time_stretch_and_pitch_shift,
        *jax.device_put((clips, length, rates, semitones)),
    )
    each = clips, rates.tolist(), semitones.tolist()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    print(environment("jax", "librosa"))
    print(
        f"{args.batch} clips of 5 s, {SETTINGS.sample_rate} Hz; semitones "
        f"{SEMITONES[0]} to {SEMITONES[-1]}, rates {RATES[0]} to {RATES[1]}"
    )
    # A process that has started JAX can't be forked.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(cores, context) as pool:
        contenders: dict[str, Callable[[], Any]] = {
            OURS: lambda: jax.block_until_ready(ours()),
            "librosa, a process a core": lambda: list(pool.map(librosa_changed, *each)),
            "librosa": lambda: list(map(librosa_changed, *each)),
        }
        seconds = take_turns(contenders, args.repeats)
    print_rates({name: len(clips) / time for name, time in seconds.items()}, "clips/s")

    seconds = take_turns(
        {
            "none changed": train_step(clips, args.model, Augment()),
            "half changed": train_step(clips, args.model, PAPER),
        },
        args.repeats,
    )
    print(f"\nTraining step of {args.model}, from audio, {args.batch} clips\n")
    print("| clips | seconds a step | times as long |\n|---|---|---|")
    for name, time in seconds.items():
        print(f"| {name} | {time:.3f} | {time / seconds['none changed']:.3f} |")
