"""Sounds made by code: ten classes with real variety, no file needed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import numpy as np

from audiojax.datasets.recordings import Clip, Info, Recordings, Settings
from audiojax.errors import InputError

# Part of the clips' sums: count it up with any change of the sounds.
VERSION = 1

# Ranges from which each clip draws, before its class adds its own.
DURATION = (0.4, 0.9)  # of the clip that the sound takes
LEVEL_DB = (-24.0, -6.0)  # root mean square of sound and background together, at most
SNR_DB = (-6.0, 12.0)  # sound against background, while the sound lasts
TILT = (0.0, 1.0)  # the background's amplitude falls with frequency to this power
LOUDEST = 0.99  # a louder clip is turned down

Random = np.random.Generator


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _harmonics(phase: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of weights[k] * sin((k + 1) * phase), by Chebyshev's recurrence."""
    now = np.sin(phase)
    total = weights[0] * now
    before, twice = np.zeros_like(phase), 2 * np.cos(phase)
    for weight in weights[1:]:
        before, now = now, twice * now - before
        total += weight * now
    return total


def _voice(rng: Random, frequency: np.ndarray, rate: int) -> np.ndarray:
    """A tone of the frequency [T] in Hz, with up to three harmonics."""
    weights = np.append(1.0, rng.uniform(0, 0.5, rng.integers(0, 3)))
    return _harmonics(2 * np.pi * np.cumsum(frequency) / rate, weights)


def _pure_tone(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * _log_uniform(rng, 150, 3000) * t)


def _rich_tone(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    order = np.arange(1, 13)
    weights = rng.uniform(0.3, 1, len(order)) / order ** rng.uniform(0.3, 1.2)
    return _harmonics(2 * np.pi * _log_uniform(rng, 80, 600) * t, weights)


def _glide(rng: Random, t: np.ndarray) -> np.ndarray:
    """A frequency [T] in Hz that rises by a third of an octave to two octaves."""
    octaves = rng.uniform(0.35, 2.0)
    return _log_uniform(rng, 200, 1200) * 2 ** (octaves * t / t[-1])


def _rising(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    return _voice(rng, _glide(rng, t), rate)


def _falling(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    return _voice(rng, _glide(rng, t)[::-1], rate)


def _tremolo(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    tone = _voice(rng, np.full_like(t, _log_uniform(rng, 200, 2500)), rate)
    depth, speed, start = rng.uniform(0.6, 1), rng.uniform(4, 12), rng.uniform(0, 6)
    return tone * (1 + depth * np.sin(2 * np.pi * speed * t + start))


def _vibrato(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    depth, speed = _log_uniform(rng, 0.02, 0.12), rng.uniform(4, 10)
    swing = 1 + depth * np.sin(2 * np.pi * speed * t + rng.uniform(0, 6))
    return _voice(rng, _log_uniform(rng, 200, 2500) * swing, rate)


def _bursts(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    """One to five bursts of noise, each with an edge and a decay."""
    sound = np.zeros_like(t)
    for _ in range(rng.integers(1, 6)):
        start = rng.integers(0, max(int(0.8 * len(t)), 1))
        size = min(int(rng.uniform(0.05, 0.25) * rate), len(t) - start)
        decay = np.exp(-rng.uniform(1, 6) * np.linspace(0, 1, size))
        sound[start : start + size] += decay * rng.standard_normal(size)
    return sound


def _clicks(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    """A train of short damped ringings, not quite regular."""
    period = 1 / _log_uniform(rng, 5, 25)
    times = np.arange(0, t[-1], period)
    times = times + rng.uniform(-0.08, 0.08, len(times)) * period
    ring = np.arange(int(0.02 * rate)) / rate
    pitch, damping = _log_uniform(rng, 600, 5000), rng.uniform(200, 800)
    click = np.sin(2 * np.pi * pitch * ring) * np.exp(-damping * ring)
    sound = np.zeros(len(t) + len(click))
    for start in np.clip((times * rate).astype(int), 0, len(t) - 1):
        sound[start : start + len(click)] += click
    return sound[: len(t)]


def _wind(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    """Noise of a narrow band that wanders: slow noise on a gliding carrier."""
    bandwidth = _log_uniform(rng, 60, 400)
    points = np.arange(0, t[-1] + 2 / bandwidth, 1 / bandwidth)
    envelope = np.interp(t, points, rng.standard_normal(len(points)))
    frequency = _glide(rng, t)
    if rng.random() < 0.5:
        frequency = frequency[::-1]
    return envelope * np.sin(2 * np.pi * np.cumsum(frequency) / rate)


def _bell(rng: Random, t: np.ndarray, rate: int) -> np.ndarray:
    """One to three strikes of partials that are no harmonics and die away."""
    pitch, damping = _log_uniform(rng, 250, 1000), rng.uniform(2, 6)
    ring = np.zeros_like(t)
    for order, ratio in enumerate((1.0, 2.0, 2.76, 3.9), 1):
        partial = pitch * ratio * rng.uniform(0.97, 1.03)
        amplitude = rng.uniform(0.2, 1) / order
        decay = np.exp(-damping * order**0.7 * t)
        ring += amplitude * decay * np.sin(2 * np.pi * partial * t)
    sound = ring.copy()
    for start in rng.uniform(0.1, 0.7, rng.integers(0, 3)):
        first = int(start * len(t))
        sound[first:] += rng.uniform(0.4, 1) * ring[: len(t) - first]
    return sound


# By label. Each makes a sound [T] at times t [T] in seconds, of any level.
SOUNDS: dict[str, Callable[[Random, np.ndarray, int], np.ndarray]] = {
    make.__name__.lstrip("_"): make
    for make in (
        *(_pure_tone, _rich_tone, _rising, _falling, _tremolo, _vibrato),
        *(_bursts, _clicks, _wind, _bell),
    )
}


@functools.cache
def _log_frequency(size: int) -> np.ndarray:
    """Logarithm of the frequency in an FFT's steps, flat at its low end."""
    return np.log(np.maximum(np.arange(size), 16))


def _background(rng: Random, num_samples: int) -> np.ndarray:
    """Noise of root mean square 1 between white and pink, as one inverse FFT."""
    log_frequency = _log_frequency(num_samples // 2 + 1)
    spectrum = rng.standard_normal(2 * len(log_frequency)).view(np.complex128)
    spectrum *= np.exp(-rng.uniform(*TILT) * log_frequency)
    noise = np.fft.irfft(spectrum, num_samples)
    return noise / _rms(noise)


def _rms(x: np.ndarray) -> float:
    return max(float(np.sqrt(np.mean(x**2))), 1e-12)


def _clip(seed: int, index: int, make: Callable, rate: int, size: int) -> np.ndarray:
    """One clip: a sound somewhere in the background noise, rounded to 16 bits."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    length = int(rng.uniform(*DURATION) * size)
    onset = rng.integers(0, size - length + 1)
    sound = make(rng, np.arange(length) / rate, rate)
    fade = np.linspace(0, 1, min(int(0.01 * rate), length // 2))
    sound[: len(fade)] *= fade
    sound[len(sound) - len(fade) :] *= fade[::-1]
    mix = _background(rng, size)
    gain = 10 ** (rng.uniform(*SNR_DB) / 20) / _rms(sound)
    mix[onset : onset + length] += gain * sound
    mix *= 10 ** (rng.uniform(*LEVEL_DB) / 20) / _rms(mix)
    mix *= min(1.0, LOUDEST / np.abs(mix).max())
    # Coarser than the last bits in which processors differ.
    return (np.rint(mix * 32767) / 32768).astype(np.float32)


def create(
    *,
    seed: int = 0,
    sample_rate: int = 22050,
    num_folds: int = 5,
    clips_per_class: int = 8,
    seconds: float = 2.0,
) -> Recordings:
    """The data set of a seed; clips are made when they are asked for.

    Args:
        seed: of all that is random; clip i depends on it and on i alone.
        sample_rate: in Hz, at least 8000.
        num_folds: how many folds, each with all classes.
        clips_per_class: clips of each class in each fold.
        seconds: length of every clip, at least 0.25.

    Returns:
        Clips by fold, in it by class; every clip is its own source recording.

    Raises:
        InputError: for numbers outside those ranges.
    """
    if seed < 0 or sample_rate < 8000 or min(num_folds, clips_per_class) < 1:
        raise InputError(
            f"synthetic sounds of seed {seed} at {sample_rate} Hz, {num_folds} folds, "
            f"{clips_per_class} clips a class: give a seed of at least 0, 8000 Hz or "
            "more, and at least one fold and clip"
        )
    size = round(seconds * sample_rate)
    if seconds < 0.25:
        raise InputError(f"synthetic sounds of {seconds} seconds; give at least 0.25")
    classes, makers = tuple(SOUNDS), tuple(SOUNDS.values())
    labels = np.tile(np.repeat(np.arange(len(classes)), clips_per_class), num_folds)
    per_fold = len(classes) * clips_per_class
    clips = []
    for index, label in enumerate(labels.tolist()):
        fold = index // per_fold + 1
        name = f"{fold}-{index:05d}-{classes[label]}"
        clips.append(Clip(name, (label,), fold, source=name))
    made = repr((VERSION, seed, sample_rate, size)).encode()
    sums = (hashlib.sha256(made + clip.filename.encode()) for clip in clips)
    return Recordings(
        info=Info("synthetic", classes, sample_rate, tuple(clips)),
        digests=[found.hexdigest() for found in sums],
        lengths=np.full(len(clips), size),
        read=lambda index: _clip(seed, index, makers[labels[index]], sample_rate, size),
    )


def load(settings: Settings) -> Recordings:
    """The default data set of a seed: 400 clips of two seconds in five folds.

    Args:
        settings: of which sample_rate and seed are used; nothing is stored.

    Raises:
        InputError: if a source_dir is given.
    """
    if settings.source_dir is not None:
        raise InputError(
            f"source_dir is {settings.source_dir!r}, but the synthetic sounds are made "
            "by code; leave it out, or choose another data set to read it"
        )
    return create(seed=settings.seed, sample_rate=settings.sample_rate)
