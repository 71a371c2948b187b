"""Speed of the log-mel."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import librosa
import numpy as np
import soundfile
import soxr
from PIL import Image

from audiojax.errors import InputError
from audiojax.features import PRESETS, LogMel, log_mel
from scripts.benchmark.common import OURS, environment, print_rates, take_turns


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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--clips", type=Path, help="folder with audio; default: noise")
    parser.add_argument("--preset", choices=PRESETS, default="esc50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)


def run(args: argparse.Namespace) -> None:
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
