"""Measures speed beside the libraries that do the same work, in one run.

    python scripts/benchmark.py features
    python scripts/benchmark.py features --clips ../esc10/audio --preset esc50

The contenders take turns, so that a busy machine slows all alike: compare the
ratios, and the numbers only on a machine that does nothing else. PyTorch is not one
of the project's dependencies; where it can't be imported it is left out.
"""

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import librosa
import numpy as np
import soundfile
import soxr
from PIL import Image

from audiojax.errors import InputError
from audiojax.features import PRESETS, LogMel, log_mel

OURS = "audiojax"


def environment(*packages: str) -> str:
    """One line: cores this process may use, load, device, versions."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return (
        f"{platform.machine()}, {cores} cores, load before the run "
        f"{os.getloadavg()[0]:.1f}; JAX on {jax.devices()[0].device_kind}; "
        f"Python {platform.python_version()}, "
    ) + ", ".join(
        f"{name} {importlib.import_module(name).__version__}" for name in packages
    )


def take_turns(
    contenders: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
    """Median seconds of each contender; all run once a round, after one to warm up.

    Args:
        contenders: name to a function that returns when its work is done.
        repeats: rounds that are timed.
    """
    seconds = {name: [] for name in contenders}
    for round_ in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if round_ > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def print_rates(rates: dict[str, float], unit: str) -> None:
    """A Markdown table of rates and how many times faster ours is."""
    print(f"\n| | {unit} | ours is faster by |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rates[OURS] / rate:.2f} |")


def read_clips(folder: Path | None, settings: LogMel, count: int) -> np.ndarray:
    """Clips [count, T] of five seconds: the first audio files, or else made noise."""
    clips = np.zeros((count, 5 * settings.sample_rate), np.float32)
    if folder is None:
        return np.random.default_rng(0).normal(0, 0.1, clips.shape).astype(np.float32)
    formats = {f".{name.lower()}" for name in soundfile.available_formats()}
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in formats)
    if not files:
        raise InputError(f"{folder} holds no audio file; give a folder with some")
    for index, clip in enumerate(clips):
        path = files[index % len(files)]
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        audio = soxr.resample(audio.mean(axis=1), rate, settings.sample_rate)
        clip[: len(audio)] = audio[: len(clip)]
    return clips


def librosa_log_mel(clips: np.ndarray, settings: LogMel) -> np.ndarray:
    """What `log_mel` computes, by librosa and Pillow, a clip at a time."""
    channels = []
    for window, hop in zip(settings.window_lengths, settings.hop_lengths, strict=True):
        images = []
        for clip in clips:
            mel = librosa.feature.melspectrogram(
                y=clip,
                sr=settings.sample_rate,
                n_fft=settings.n_fft,
                win_length=window,
                hop_length=hop,
                n_mels=settings.n_mels,
                htk=True,
                norm=None,
                pad_mode="reflect",
            )
            image = Image.fromarray(np.log(mel + settings.eps))
            size = (settings.frames, settings.n_mels)
            images.append(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))
        channels.append(np.stack(images))
    return np.stack(channels, axis=-1)


def torch_log_mel(clips: np.ndarray, settings: LogMel) -> Callable[[], Any]:
    """What `log_mel` computes, by PyTorch, the whole batch at once.

    Returns:
        A function that does the work; it leaves the images where they are made.
    """
    import torch  # pyright: ignore[reportMissingImports]

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    audio = torch.tensor(clips, device=device)
    filters = torch.tensor(
        librosa.filters.mel(
            sr=settings.sample_rate,
            n_fft=settings.n_fft,
            n_mels=settings.n_mels,
            htk=True,
            norm=None,
        ),
        device=device,
    )
    lengths = list(zip(settings.window_lengths, settings.hop_lengths, strict=True))
    windows = [torch.hann_window(window, device=device) for window, _ in lengths]

    @torch.inference_mode()
    def work():
        channels = []
        for (window, hop), hann in zip(lengths, windows, strict=True):
            spectra = torch.stft(
                audio,
                settings.n_fft,
                hop,
                window,
                hann,
                pad_mode="reflect",
                return_complex=True,
            )
            # Faster than spectra.abs() ** 2, which takes a square root.
            power = spectra.real.square() + spectra.imag.square()
            mel = torch.log(filters @ power + settings.eps)
            images = torch.nn.functional.interpolate(
                mel[:, None],
                (settings.n_mels, settings.frames),
                mode="bilinear",
                antialias=True,
            )
            channels.append(images[:, 0])
        images = torch.stack(channels, dim=-1)
        if device == "cuda":
            torch.cuda.synchronize()
        return images

    return work


def features(args: argparse.Namespace) -> None:
    """Clips per second of the log-mel: librosa, torch.stft and ours."""
    settings = PRESETS[args.preset]
    clips = read_clips(args.clips, settings, args.batch)
    # librosa works clip by clip: a quarter of them tells its speed.
    few = clips[: max(1, len(clips) // 4)]
    audio = jax.device_put(clips)
    packages = ["jax", "librosa"]
    contenders: dict[str, Callable[[], Any]] = {
        OURS: lambda: log_mel(audio, settings).block_until_ready(),
        "librosa": lambda: librosa_log_mel(few, settings),
    }
    try:
        contenders["torch.stft"] = torch_log_mel(clips, settings)
        packages.append("torch")
    except ImportError:
        print("torch can't be imported here: left out")

    print(environment(*packages))
    print(f"{args.batch} clips of 5 s, {settings.sample_rate} Hz, preset {args.preset}")
    images = {name: np.asarray(work()) for name, work in contenders.items()}
    for name in list(contenders)[1:]:
        difference = np.abs(images[name] - images[OURS][: len(images[name])]).max()
        print(f"largest difference of {name} from {OURS}: {difference:.1e}")
    seconds = take_turns(contenders, args.repeats)
    rates = {name: len(images[name]) / seconds[name] for name in contenders}
    print_rates(rates, "clips per second")


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

    args = parser.parse_args()
    try:
        args.run(args)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
