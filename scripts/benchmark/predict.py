"""Speed and memory of predicting a long recording."""

import argparse
import functools
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import librosa
import numpy as np
import soundfile

from audiojax import classifier, models
from audiojax.inference import BATCH_SIZE, Member
from audiojax.predictor import OVERLAP, Predictor
from audiojax.task import TASKS
from configs import common
from scripts.benchmark.common import OURS, environment
from scripts.benchmark.features import librosa_log_mel
from scripts.benchmark.models import CLASSES, torch_module

RATE, CHANNELS = 48000, 2
TORCH = "PyTorch, librosa"
# Gives the number of windows of a file.
Work = Callable[[Path], int]


def write_noise(path: Path, minutes: float) -> None:
    """Writes a stereo file of noise at 48 kHz, a second at a time."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, CHANNELS, "PCM_16") as file:
        for _ in range(round(60 * minutes)):
            file.write(rng.normal(0, 0.1, (RATE, CHANNELS)))


def settings(name: str):
    """The config for ESC-50, with that network."""
    config = common.get_config()
    config.model.name, config.model.pretrained = name, None
    return config


def ours(name: str) -> Work:
    """This project's predictor, of a network with fresh parameters."""
    classes = tuple(map(str, range(CLASSES)))
    made = classifier.create(settings(name), classes, TASKS["single_label"])
    member = Member(made, [made.init(jax.random.key(0))], classes)
    opened = Predictor([member], {"fresh": ["fresh"]})

    def work(path: Path) -> int:
        (found,) = opened.predictions([path])
        return len(found.start)  # pyright: ignore[reportAttributeAccessIssue]

    return work


def by_torch(name: str) -> Work:
    """What many scripts do: the file by librosa, its windows by PyTorch's network."""
    import torch  # pyright: ignore[reportMissingImports]

    made = classifier.create(settings(name), ("a",), TASKS["single_label"])
    log_mel, length = made.log_mel, made.clip_policy.num_samples
    network = torch_module(name).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def work(path: Path) -> int:
        sound, _ = librosa.load(path, sr=log_mel.sample_rate, mono=True)
        starts = np.arange(0, len(sound) - length, round(length * (1 - OVERLAP)))
        starts = np.append(starts, max(len(sound) - length, 0))
        for first in range(0, len(starts), BATCH_SIZE):
            batch = starts[first : first + BATCH_SIZE]
            clips = np.stack([sound[start:][:length] for start in batch])
            images = librosa_log_mel(clips, log_mel).transpose(0, 3, 1, 2)
            image = torch.tensor(images).contiguous(memory_format=torch.channels_last)
            network(image).softmax(-1).numpy()
        return len(starts)

    return work


CONTENDERS: dict[str, Callable[[str], Work]] = {OURS: ours, TORCH: by_torch}


def measure(contender: str, name: str, path: Path) -> dict[str, float]:
    """Seconds and peak memory of this process, after a short file to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder, "short.wav"), 1 / 3)
        work = CONTENDERS[contender](name)
        work(Path(folder, "short.wav"))
    start = time.perf_counter()
    windows = work(path)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"windows": windows, "seconds": seconds, "peak": peak}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--minutes", type=float, default=10.0, help="of made noise")
    parser.add_argument("--file", type=Path, help="a recording, instead of noise")
    parser.add_argument("--model", choices=models.MODELS, default="efficientnet_lite0")
    parser.add_argument(
        "--contender", choices=CONTENDERS, help="measure one, in this process"
    )


def run(args: argparse.Namespace) -> None:
    """A long recording by overlapping windows: ours, and PyTorch's with librosa."""
    if args.contender:
        print(json.dumps(measure(args.contender, args.model, args.file)))
        return
    names = [OURS]
    try:
        importlib.import_module("torch")
        names.append(TORCH)
    except ImportError:
        print("torch can't be imported here: left out")
    print(environment("jax", "librosa", *["torch"] * (len(names) > 1)))
    with tempfile.TemporaryDirectory() as folder:
        path = args.file
        if path is None:
            path = Path(folder, "noise.wav")
            write_noise(path, args.minutes)
        length = soundfile.info(path).duration
        # Each in a process of its own, as memory is measured.
        child = functools.partial(subprocess.run, stdout=subprocess.PIPE, check=True)
        found = {
            name: json.loads(
                child(
                    [*sys.orig_argv, f"--file={path}", f"--contender={name}"]
                ).stdout.splitlines()[-1]
            )
            for name in names
        }
    print(f"\n{args.model}, {length / 60:.1f} minutes, a window every 2.5 s")
    print("\n| | windows | times real time | ours is faster by | peak memory, MB |")
    print("|---" * 5 + "|")
    for name, row in found.items():
        print(
            f"| {name} | {row['windows']} | {length / row['seconds']:.0f} "
            f"| {row['seconds'] / found[OURS]['seconds']:.2f} "
            f"| {row['peak'] / 1e6:.0f} |"
        )
