"""The part of a sound that a map of its spectrogram keeps, to be heard."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal

from audiojax.attribution import strongest
from audiojax.features import LogMel, mel_corners

# The share of the positive attribution that the kept pixels hold.
HELD = 0.8


def kept_pixels(attribution: np.ndarray, held: float = HELD) -> np.ndarray:
    """The fewest pixels that hold a share of the positive attribution.

    Args:
        attribution: [mel, frames].
        held: the share.

    Returns:
        [mel, frames] of bool; none, where nothing is positive.
    """
    positive = np.sort(np.maximum(attribution, 0), axis=None)[::-1].astype(np.float64)
    total = np.cumsum(positive)
    count = 0 if total[-1] == 0 else np.searchsorted(total, held * total[-1]) + 1
    return strongest(attribution, np.array([count]))[0]


def bands(frequencies: np.ndarray, log_mel: LogMel) -> np.ndarray:
    """Where frequencies (Hz) stand among the rows of an image, not whole numbers."""
    centers = mel_corners(log_mel)[1:-1]
    return np.interp(frequencies, centers, np.arange(len(centers)))


def split(
    samples: np.ndarray, mask: np.ndarray, log_mel: LogMel
) -> tuple[np.ndarray, np.ndarray]:
    """What a mask keeps of a sound and what it leaves, which sum to the sound.

    Each bin of the sound's short-time Fourier transform is multiplied with the mask,
    interpolated at its frequency and time; its phase stays. The window is the second
    of the log-mel's, its step a quarter of it.

    Args:
        samples: [T].
        mask: [mel, frames] from 0 to 1; the frames cover the sound.
        log_mel: how the image was made.

    Returns:
        Both parts, [T] float32.
    """
    lengths = sorted(log_mel.window_lengths)
    step = -(-lengths[len(lengths) // 2] // 4)
    size = min(4 * step, len(samples) // 4 * 4)
    if size < 4:  # a sound of no length has no spectrum
        kept = np.float32(mask.mean()) * samples
        return kept, samples - kept
    rate = float(log_mel.sample_rate)
    frequencies, times, spectrum = signal.stft(
        samples, rate, nperseg=size, noverlap=size * 3 // 4
    )
    width = mask.shape[1]
    columns = times * rate / len(samples) * width - 0.5
    places = np.meshgrid(bands(frequencies, log_mel), columns, indexing="ij")
    gain = ndimage.map_coordinates(
        mask.astype(np.float64), places, order=1, mode="nearest"
    )
    _, kept = signal.istft(spectrum * gain, rate, nperseg=size, noverlap=size * 3 // 4)
    kept = kept[: len(samples)].astype(np.float32)
    return kept, samples - kept
