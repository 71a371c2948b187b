"""Log-mel images of sound, computed by one compiled function.

The only log-mel of the project: the data pipeline, the training step, prediction
and export all call `log_mel`. The recipe is that of K. Palanisamy, D. Singhania,
A. Yao, "Rethinking CNN Models for Audio Classification" (arXiv 2007.11154): three
log-mel spectrograms with windows of different lengths, resized to one size and
stacked like the three colors of a picture.
"""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from audiojax.errors import InputError

# Outputs per small product in `_banded_matmul`. Any value from 8 to 64 is within
# a tenth of the best time; larger ones multiply more zeros.
_MEL_GROUP = 16
_FRAME_GROUP = 50


@dataclasses.dataclass(frozen=True)
class LogMel:
    """How a waveform becomes an image. The defaults are the paper's for ESC-50.

    Attributes:
        sample_rate: samples per second of the waveform.
        n_fft: length of the Fourier transform in samples; windows that are shorter
            are padded with zeros to it.
        window_ms: length of each channel's Hann window in milliseconds.
        hop_ms: step between the frames of each channel in milliseconds.
        n_mels: mel bands, the height of the image.
        frames: width of the image, to which every channel is resized.
        eps: added to the mel power before the logarithm.
        top_db: how many decibels the quietest pixel of a channel may lie under its
            loudest one, as in `librosa.power_to_db`; 0 for no such floor, as in the
            paper.

    Raises:
        InputError: a setting is not positive, windows and hops differ in number, or a
            window is longer than n_fft.
    """

    sample_rate: int = 44100
    n_fft: int = 4410
    window_ms: tuple[float, ...] = (25.0, 50.0, 100.0)
    hop_ms: tuple[float, ...] = (10.0, 25.0, 50.0)
    n_mels: int = 128
    frames: int = 250
    eps: float = 1e-6
    top_db: float = 0.0

    def __post_init__(self):
        # Lists come from config files; a static argument of jit must be hashable.
        object.__setattr__(self, "window_ms", tuple(self.window_ms))
        object.__setattr__(self, "hop_ms", tuple(self.hop_ms))
        for name, value in dataclasses.asdict(self).items():
            if name != "top_db" and not np.all(np.greater(value, 0)):
                raise InputError(f"{name}={value}: expected positive numbers only")
        if not 0 <= self.top_db < np.inf:
            raise InputError(
                f"top_db={self.top_db}: expected decibels, or 0 for no floor"
            )
        if not self.window_ms or len(self.window_ms) != len(self.hop_ms):
            raise InputError(
                f"window_ms={self.window_ms} and hop_ms={self.hop_ms}: expected one "
                "hop for each window and at least one; give both the same count"
            )
        if 0 in self.window_lengths + self.hop_lengths:
            raise InputError(
                f"window_ms={self.window_ms} or hop_ms={self.hop_ms} holds less than "
                f"one sample at {self.sample_rate} Hz; give longer times"
            )
        if self.n_fft < max(self.window_lengths):
            raise InputError(
                f"n_fft={self.n_fft} is shorter than the longest window "
                f"({max(self.window_ms)} ms, {max(self.window_lengths)} samples at "
                f"{self.sample_rate} Hz); raise n_fft or shorten the window"
            )

    def _samples(self, times_ms: tuple[float, ...]) -> tuple[int, ...]:
        return tuple(round(time * self.sample_rate / 1000) for time in times_ms)

    @property
    def window_lengths(self) -> tuple[int, ...]:
        """Window of each channel in samples."""
        return self._samples(self.window_ms)

    @property
    def hop_lengths(self) -> tuple[int, ...]:
        """Step of each channel in samples."""
        return self._samples(self.hop_ms)

    @property
    def depth(self) -> float:
        """`top_db` as a difference of natural logarithms of power."""
        return self.top_db * float(np.log(10)) / 10

    @property
    def min_samples(self) -> int:
        """Shortest waveform that can be reflected at its ends by half an n_fft."""
        return self.n_fft // 2 + 1


PRESETS = {
    "esc50": LogMel(),
    "urbansound8k": LogMel(sample_rate=22050, n_fft=2205),
    "gtzan": LogMel(sample_rate=22050, n_fft=2205, frames=1500),
}


@functools.partial(jax.jit, static_argnames="settings")
def log_mel(
    audio: jax.Array, settings: LogMel, length: jax.Array | None = None
) -> jax.Array:
    """Turns waveforms into log-mel images.

    For each window: frames centered on multiples of the hop, the ends of the clip
    reflected; periodic Hann window; squared magnitude of the Fourier transform;
    triangular mel bands on the HTK scale from 0 Hz to half the sample rate, not
    normalized by area; natural logarithm of (power + eps); linear resizing in time
    to `frames` columns, antialiased where it shrinks; then nothing is lower than
    `top_db` under the largest value of its channel. librosa gives the same with
    `melspectrogram(htk=True, norm=None, center=True, pad_mode="reflect", power=2)`,
    and Pillow with `resize(..., BILINEAR)`.

    Compiled, differentiable, and free to be used in larger compiled functions and
    under `vmap` and `pmap`.

    Args:
        audio: waveforms, float32 [B, T], at `settings.sample_rate`, usually in -1..1.
        settings: a `LogMel`; static, each new value compiles anew.
        length: integers [B], from 1 to T, where only the first samples are a clip's
            own: its image is then that of those samples alone, stretched to `frames`
            columns, as the paper's code does with clips of any length. None if all
            samples are.

    Returns:
        Images, float32 [B, n_mels, frames, windows]; row 0 is the lowest band.

    Raises:
        InputError: audio is not [B, T], is not floating point, or is shorter than
            `settings.min_samples`; length is not integers [B]; or there are so many
            mel bands that one is empty.
    """
    _check(audio, settings, length)
    audio = audio.astype(jnp.float32)
    clips = (audio,) if length is None else (audio, length)
    image = functools.partial(_image, settings)
    # A clip's spectra fill 23 MB. On a CPU, clip by clip keeps them in cache and in
    # pages that the system has already given, which halves the time of a batch.
    # An accelerator wants the whole batch at once.
    return jax.lax.platform_dependent(
        *clips,
        cpu=lambda *clips: jax.lax.map(lambda clip: image(*clip), clips),
        default=jax.vmap(image),
    )


def image_statistics(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, to standardize images with.

    Give the training clips alone: statistics of test clips would leak them.

    Args:
        images: batches of images, each [n, n_mels, frames, C], without padding clips.

    Returns:
        Mean and standard deviation, each float32 [C], summed in float64.

    Raises:
        InputError: there is no clip at all.
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for batch in images:
        values = np.asarray(batch, np.float64).reshape(-1, batch.shape[-1])
        count += len(values)
        total = total + values.sum(axis=0)
        squares = squares + np.square(values).sum(axis=0)
    if count == 0:
        raise InputError(
            "image statistics of no clips: expected at least one training clip; check "
            "the folds to train on"
        )
    mean = total / count
    # Rounding may leave a constant channel a hair below zero.
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), std.astype(np.float32)


def _check(audio: jax.Array, settings: LogMel, length: jax.Array | None) -> None:
    if audio.ndim != 2:
        raise InputError(
            f"audio has shape {audio.shape}; expected [batch, samples]: add a batch "
            "axis to one clip, mix several channels to one"
        )
    if not jnp.issubdtype(audio.dtype, jnp.floating):
        raise InputError(
            f"audio is {audio.dtype}; expected floating point in -1..1: divide "
            "integer samples by their largest value"
        )
    if audio.shape[1] < settings.min_samples:
        raise InputError(
            f"audio has {audio.shape[1]} samples; a centered transform of "
            f"n_fft={settings.n_fft} needs at least {settings.min_samples}: pad the "
            "clip with zeros"
        )
    if length is not None and (
        length.shape != audio.shape[:1] or not jnp.issubdtype(length.dtype, jnp.integer)
    ):
        raise InputError(
            f"length is {length.dtype} {length.shape} for {len(audio)} clips; expected "
            "the number of samples of each"
        )


def _image(
    settings: LogMel, audio: jax.Array, length: jax.Array | None = None
) -> jax.Array:
    """Image [n_mels, frames, windows] of one waveform [T], or of its first samples."""
    half = settings.n_fft // 2
    if length is None:
        padded = jnp.pad(audio, half, mode="reflect")
    else:
        length = jnp.clip(length, 1, len(audio))
        padded = _reflected(audio, length, half)
    filters = mel_filters(settings)
    channels = []
    for window, hop in zip(settings.window_lengths, settings.hop_lengths, strict=True):
        power = _power_spectra(padded, settings.n_fft, window, hop)
        mel = jnp.log(_banded_matmul(power, filters, _MEL_GROUP) + settings.eps)
        if length is None:
            weights = resize_weights(len(mel), settings.frames)
            channels.append(_banded_matmul(mel.T, weights, _FRAME_GROUP))
        else:
            count = (length + 2 * half - settings.n_fft) // hop + 1
            weights = _stretch_weights(count, len(mel), settings.frames)
            channels.append(jnp.matmul(mel.T, weights, precision="highest"))
    image = jnp.stack(channels, axis=-1)
    if not settings.top_db:
        return image
    return jnp.maximum(image, image.max((0, 1), keepdims=True) - settings.depth)


def _reflected(audio: jax.Array, length: jax.Array, pad: int) -> jax.Array:
    """[T + 2 * pad]: the first `length` samples, reflected at both ends to and fro."""
    period = jnp.maximum(2 * (length - 1), 1)
    place = jnp.arange(-pad, len(audio) + pad) % period
    return audio[jnp.minimum(place, period - place)]


def _power_spectra(padded: jax.Array, n_fft: int, window: int, hop: int) -> jax.Array:
    """Power [frames, n_fft // 2 + 1] of the frames of one padded waveform."""
    starts = np.arange(0, len(padded) - n_fft + 1, hop) + (n_fft - window) // 2
    # Periodic: one longer than needed, its last sample dropped.
    hann = np.hanning(window + 1)[:-1].astype(np.float32)
    # Only the samples under the window are cut out. The zeros that would center it
    # in n_fft shift the phase and leave the power as it is, so all go to the end.
    frames = jax.vmap(
        lambda start: hann * jax.lax.dynamic_slice(padded, (start,), (window,))
    )(starts)
    spectra = jnp.fft.rfft(frames, n_fft)
    return jnp.square(spectra.real) + jnp.square(spectra.imag)


def _banded_matmul(x: jax.Array, matrix: np.ndarray, group: int) -> jax.Array:
    """Computes `x @ matrix` for a matrix whose non-zeros lie along a diagonal band.

    Each group of columns is multiplied with the few rows that it touches: an eighth
    of the full product's arithmetic for the mel bands. No column may be empty.
    """
    products = []
    for first in range(0, matrix.shape[1], group):
        columns = matrix[:, first : first + group]
        rows = np.flatnonzero(columns.any(axis=1))
        band = slice(rows[0], rows[-1] + 1)
        # Default precision is bfloat16 on a TPU: too coarse for a spectrum.
        products.append(jnp.matmul(x[..., band], columns[band], precision="highest"))
    return jnp.concatenate(products, axis=-1)


def mel_corners(settings: LogMel) -> np.ndarray:
    """Hertz [n_mels + 2] at which the triangle of each band begins, peaks and ends.

    Band i has the corners i, i + 1 and i + 2.
    """
    top = 2595 * np.log10(1 + settings.sample_rate / 2 / 700)
    mels = np.linspace(0, top, settings.n_mels + 2)
    return 700 * (10 ** (mels / 2595) - 1)


def mel_filters(settings: LogMel) -> np.ndarray:
    """Triangles [n_fft // 2 + 1, n_mels] of height 1, even on the HTK mel scale."""
    frequencies = np.fft.rfftfreq(settings.n_fft, 1 / settings.sample_rate)[:, None]
    corners = mel_corners(settings)
    widths = np.diff(corners)
    rising = (frequencies - corners[:-2]) / widths[:-1]
    falling = (corners[2:] - frequencies) / widths[1:]
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    if not (filled := filters.any(axis=0)).all():
        raise InputError(
            f"{(~filled).sum()} of {settings.n_mels} mel bands hold no frequency of a "
            f"Fourier transform of n_fft={settings.n_fft}; lower n_mels or raise n_fft"
        )
    return filters


def resize_weights(size: int, new_size: int) -> np.ndarray:
    """Weights [size, new_size] of a linear resize, antialiased where it shrinks."""
    scale = size / new_size
    centers = (np.arange(new_size) + 0.5) * scale - 0.5
    distances = np.abs(np.arange(size)[:, None] - centers) / max(scale, 1)
    weights = np.maximum(0, 1 - distances)
    return (weights / weights.sum(axis=0)).astype(np.float32)


def _stretch_weights(size: jax.Array, most: int, new_size: int) -> jax.Array:
    """The same [most, new_size] for the first `size` rows, known only when computed."""
    # Positions in halves of a step of the old and new grid at once are whole numbers,
    # and exact in 32 bits.
    row, column = jnp.arange(most)[:, None], jnp.arange(new_size)[None, :]
    distances = jnp.abs((2 * row + 1) * new_size - (2 * column + 1) * size)
    weights = jnp.maximum(0, 1 - distances / (2 * jnp.maximum(size, new_size)))
    weights = jnp.where(row < size, weights, 0)
    return weights / weights.sum(axis=0, keepdims=True)
