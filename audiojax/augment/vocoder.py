"""Time stretch and pitch shift of waveforms, inside of a compiled step.

The phase vocoder is that of D. P. W. Ellis, "A phase vocoder in Matlab" (2002), as
librosa has it in `effects.time_stretch` and `effects.pitch_shift`. librosa shifts the
pitch by one vocoder pass and a resampling, and stretches by another pass. A pass is a
change of tempo, and so is resampling, so that one of each does both here.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from audiojax.errors import InputError

# How far a clip may be changed; together they bound the frames of the vocoder.
MIN_RATE, MAX_RATE = 0.5, 2.0
MAX_SEMITONES = 12.0
# Above it, 32 bits don't tell the place of a sample well enough.
MAX_SAMPLES = 2**20

# librosa's defaults. A frame is four blocks of a hop: cutting into frames and adding
# them up needs no gathering.
_N_FFT = 2048
_HOP = 512
_BLOCKS = _N_FFT // _HOP
_BINS = _N_FFT // 2 + 1
# What is made has more samples than the clip, for a spline to read between them.
_FINE_N_FFT = 3072
_FINE = _FINE_N_FFT / _N_FFT
_FINE_HOP = _FINE_N_FFT // _BLOCKS
# Frames that are made at a time: few enough to stay in a processor's cache.
_CHUNK = 64
# Below it a spectrum's value counts as zero, which has the phase zero.
_TINY = 1e-15
# From here to its end, as shares of the band that is left, the spectrum is faded out
# before the resampling, as by librosa's soxr_hq.
_PASSBAND = 0.913
# Weights of the six samples around a place by the powers of its fraction of a step:
# the pieces of the quintic B-spline.
_SPLINE = (
    np.array(
        [
            [1, -5, 10, -10, 5, -1],
            [26, -50, 20, 20, -20, 5],
            [66, 0, -60, 0, 30, -10],
            [26, 50, 20, -20, -20, 10],
            [1, 5, 10, 10, 5, -5],
            [0, 0, 0, 0, 0, 1],
        ],
        np.float32,
    )
    / 120
)
_TAPS = len(_SPLINE)


@jax.jit
def time_stretch_and_pitch_shift(
    audio: jax.Array, length: jax.Array, rate: jax.Array, semitones: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Shifts the pitch of each clip, then stretches it in time.

    As `librosa.effects.pitch_shift` and then `time_stretch`, of any sample rate: Hann
    windows of 2048 samples, 512 apart. Compiled, and free to be used in larger
    compiled functions and under `vmap` and `pmap`; forward only, as the number of
    frames is known when it runs.

    Args:
        audio: waveforms, float32 [B, T]; T is at most `MAX_SAMPLES`.
        length: integers [B], from 0 to T: the first samples are a clip's own, what
            follows them is not heard.
        rate: [B], how many times faster a clip gets, from `MIN_RATE` to `MAX_RATE`;
            what lies beyond is taken as the nearer of the two.
        semitones: [B], how much higher a clip gets, fractions too, from
            `-MAX_SEMITONES` to `MAX_SEMITONES`; what lies beyond likewise.

    Returns:
        Waveforms, float32 [B, T], and their lengths, int32 [B]: `length / rate`
        rounded to the nearest integer, to the even one of two, and T at most. What is
        longer is cut, what is shorter is followed by zeros. Where the rate is 1 and
        semitones are 0, all T samples come back as they were.

    Raises:
        InputError: audio is not floating point [B, T], is too long, or the others are
            not [B].
    """
    _check(audio, length, rate, semitones)
    rows = (
        audio.astype(jnp.float32),
        length.astype(jnp.int32),
        jnp.clip(rate.astype(jnp.float32), MIN_RATE, MAX_RATE),
        jnp.clip(semitones.astype(jnp.float32), -MAX_SEMITONES, MAX_SEMITONES),
    )
    # On a CPU, row by row stays in the cache, and a row that is left alone costs
    # nothing. An accelerator wants the whole batch at once.
    return lax.platform_dependent(
        *rows,
        cpu=lambda *rows: lax.map(lambda row: _one(*row, accumulate=_in_turn), rows),
        default=jax.vmap(functools.partial(_one, accumulate=_at_once)),
    )


def _check(audio, length, rate, semitones) -> None:
    if audio.ndim != 2 or not jnp.issubdtype(audio.dtype, jnp.floating):
        raise InputError(
            f"audio is {audio.dtype} {audio.shape}; expected floating point "
            "[batch, samples]"
        )
    if audio.shape[1] > MAX_SAMPLES:
        raise InputError(
            f"audio has {audio.shape[1]} samples; the vocoder takes {MAX_SAMPLES} at "
            "most: cut the clips, or lower the sample rate"
        )
    for name, values in (("length", length), ("rate", rate), ("semitones", semitones)):
        if values.shape != audio.shape[:1]:
            raise InputError(
                f"{name} has shape {values.shape} for {len(audio)} clips; expected one "
                "value for each"
            )


def _one(audio, length, rate, semitones, accumulate):
    """One clip [T] and its new length []."""
    return lax.cond(
        (rate == 1) & (semitones == 0),
        lambda: (audio, length),
        lambda: _changed(audio, length, rate, semitones, accumulate),
    )


def _changed(audio, length, rate, semitones, accumulate):
    """The same, of a clip that is not left alone."""
    size = len(audio)
    ratio = jnp.exp2(semitones / 12)
    new_length = jnp.minimum(_rounded_quotient(length, rate), size)
    magnitudes, turns, phase = _analysis(audio, length)
    columns = length // _HOP + 1
    samples = _synthesis(
        magnitudes,
        turns,
        phase,
        speed=rate / ratio,
        columns=columns,
        gain=_gain(ratio),
        last=jnp.ceil(new_length * ratio).astype(jnp.int32),
        accumulate=accumulate,
    )
    changed = _resampled(samples, ratio, size)
    return jnp.where(jnp.arange(size) < new_length, changed, 0), new_length


def _rounded_quotient(length: jax.Array, rate: jax.Array) -> jax.Array:
    """Integer nearest to `length / rate`, to the even one of two; exact.

    A division by float32 is wrong by a sample at times. This one goes bit by bit.
    """
    # An integer, as a rate from 0.5 has no finer bits.
    divisor = (rate * 2**24).astype(jnp.int32)

    def digit(_, state):
        quotient, rest = state
        fits = (2 * rest >= divisor).astype(jnp.int32)
        return 2 * quotient + fits, 2 * rest - fits * divisor

    quotient, rest = lax.fori_loop(0, 24, digit, (jnp.zeros_like(length), length))
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient % 2 == 1))
    return quotient + up


def _analysis(audio, length):
    """Spectrum of the frames around the multiples of a hop, zeros beyond the ends.

    Returns:
        Magnitudes [columns, bins]; the turn of the phase from each column to the next,
        and the phase of the first [bins], as complex numbers of magnitude 1. The two
        last columns are zero, as all are that have their center beyond the clip.
    """
    count = len(audio) // _HOP + 1
    own = jnp.where(jnp.arange(len(audio)) < length, audio, 0)
    spare = (count + _BLOCKS - 1) * _HOP - _N_FFT // 2 - len(audio)
    blocks = jnp.pad(own, (_N_FFT // 2, max(spare, 0)))
    blocks = blocks[: (count + _BLOCKS - 1) * _HOP].reshape(-1, _HOP)
    frames = jnp.concatenate([blocks[i : i + count] for i in range(_BLOCKS)], axis=1)
    inside = jnp.arange(count) <= length // _HOP
    spectra = jnp.fft.rfft(frames * _hann(_N_FFT)[None] * inside[:, None])
    spectra = jnp.pad(spectra, ((0, 2), (0, 0)))
    # Real and imaginary parts apart: complex division takes twice the time.
    real, imag = spectra.real, spectra.imag
    magnitudes = jnp.sqrt(jnp.square(real) + jnp.square(imag))
    scale = 1 / jnp.maximum(magnitudes, _TINY)
    real = jnp.where(magnitudes > _TINY, real * scale, 1)
    imag = jnp.where(magnitudes > _TINY, imag * scale, 0)
    turns = lax.complex(
        real[1:] * real[:-1] + imag[1:] * imag[:-1],
        imag[1:] * real[:-1] - real[1:] * imag[:-1],
    )
    return magnitudes, turns, lax.complex(real[0], imag[0])


def _hann(size: int) -> np.ndarray:
    """Periodic: one longer than needed, its last sample dropped."""
    return np.hanning(size + 1)[:-1].astype(np.float32)


def _gain(ratio: jax.Array) -> jax.Array:
    """What each bin [bins] is multiplied with for the sake of the resampling."""
    frequency = np.arange(_BINS, dtype=np.float32) / _N_FFT
    # The spline dampens what is high; the inverse of it, beforehand, evens that out.
    flat = _FINE * np.sinc(frequency / _FINE) ** -_TAPS
    # The inverse transform takes the last bin for two.
    flat[-1] /= 2
    # Higher pitch: what would come to lie above half the sample rate goes.
    share = frequency * 2 * jnp.maximum(ratio, 1)
    fade = jnp.clip((1 - share) / (1 - _PASSBAND), 0, 1)
    return jnp.where(ratio == 1, 1, fade) * flat.astype(np.float32)


def _synthesis(magnitudes, turns, phase, *, speed, columns, gain, last, accumulate):
    """The clip played `speed` times as fast at the same pitch.

    Returns:
        Samples, of which those from `_TAPS` before its beginning to `_TAPS` after
        place `last` are right.
    """
    size = len(turns) * _HOP
    most = int(np.ceil(size * 2 ** (MAX_SEMITONES / 12))) + _N_FFT
    chunks = most // (_HOP * _CHUNK) + 1
    total = jnp.ceil(columns / speed).astype(jnp.int32)
    needed = jnp.minimum(total, (last + _TAPS + _N_FFT // 2) // _HOP + 1)

    def chunk(number, state):
        phase, tail, made = state
        time = number * _CHUNK + jnp.arange(_CHUNK)
        left, share = _multiple(time, speed)
        left = jnp.minimum(left, len(turns) - 1)
        spectra, phase = accumulate(phase, magnitudes, turns, left, share)
        # Rounding adds up over the frames; of the magnitude it is taken away here.
        phase /= jnp.abs(phase)
        frames = _inverse(spectra, gain[None] * (time < total)[:, None])
        frames *= _hann(_FINE_N_FFT)[None]
        parts = frames.reshape(_CHUNK, _BLOCKS, _FINE_HOP)
        blocks = jnp.pad(tail, ((0, _CHUNK), (0, 0)))
        for i in range(_BLOCKS):
            blocks += jnp.pad(parts[:, i], ((i, _BLOCKS - 1 - i), (0, 0)))
        # The sum of the squared windows over each sample, fewer at the ends; no less
        # than a quarter within the clip.
        over = time[:, None] - np.arange(_BLOCKS)[None]
        windows = ((over >= 0) & (over < total)).astype(jnp.float32)
        weight = jnp.matmul(windows, squares, precision="highest")
        finished = blocks[:_CHUNK] / jnp.maximum(weight, 0.1)
        made = lax.dynamic_update_slice(made, finished, (number * _CHUNK, 0))
        return phase, blocks[_CHUNK:], made

    squares = np.square(_hann(_FINE_N_FFT)).reshape(_BLOCKS, _FINE_HOP)
    tail = jnp.zeros((_BLOCKS - 1, _FINE_HOP))
    made = jnp.zeros((chunks * _CHUNK, _FINE_HOP))
    used = jnp.minimum((needed + _BLOCKS - 2) // _CHUNK + 1, chunks)
    _, _, made = lax.fori_loop(0, used, chunk, (phase, tail, made))
    return made.reshape(-1)


def _inverse(spectra: jax.Array, gain: jax.Array) -> jax.Array:
    """Frames [2n, samples] of spectra [2n, bins] times gain, on the finer grid.

    Two frames are made by one complex transform, the second as the imaginary part: on
    a CPU that takes half as long as two real ones.
    """
    a, b = jnp.split(spectra.real * gain, 2)
    c, d = jnp.split(spectra.imag * gain, 2)
    positive = lax.complex(a - d, c + b)
    negative = lax.complex(a + d, b - c)[:, :0:-1]
    between = jnp.zeros((len(a), _FINE_N_FFT - 2 * _BINS + 1), positive.dtype)
    both = jnp.fft.ifft(jnp.concatenate([positive, between, negative], axis=1))
    return jnp.concatenate([both.real, both.imag])


def _in_turn(phase, magnitudes, turns, left, share):
    """Spectra [frames, bins] at the columns `left + share`, and the phase after them.

    The magnitudes are those between two columns; the phase turns from frame to frame as
    it does from column to column. Fast on a CPU: each row is read in one go.
    """

    def frame(phase, place):
        left, share = place
        magnitude = (1 - share) * magnitudes[left] + share * magnitudes[left + 1]
        spectrum = lax.complex(phase.real * magnitude, phase.imag * magnitude)
        return phase * turns[left], spectrum

    phase, spectra = lax.scan(frame, phase, (left, share))
    return spectra, phase


def _at_once(phase, magnitudes, turns, left, share):
    """The same, fast on an accelerator."""
    share = share[:, None]
    magnitude = (1 - share) * magnitudes[left] + share * magnitudes[left + 1]
    factors = jnp.concatenate([phase[None], turns[left]])
    phases = lax.associative_scan(jnp.multiply, factors)
    return phases[:-1] * magnitude, phases[-1]


def _resampled(samples, ratio, size):
    """Samples [size] that lie `ratio` steps apart, from the clip's beginning."""
    whole, fraction = _multiple(jnp.arange(size), ratio * _FINE)
    place = whole + _FINE_N_FFT // 2

    def sample(offset):
        return samples.at[place + offset].get(mode="promise_in_bounds")

    spline = 0.0
    for tap, coefficients in enumerate(_SPLINE):
        weight = functools.reduce(
            lambda sum_, c: sum_ * fraction + c, coefficients[::-1]
        )
        spline += weight * sample(tap - (_TAPS // 2 - 1))
    return spline


def _multiple(number, step):
    """Whole part and fraction of `number * step`, which is below 2**22.

    The fraction is right within 1e-4. That of a float32 product is not, and where a
    step comes close to a whole number, rounding would take the wrong side.
    """
    high = jnp.floor(step * 512)
    low = step - high / 512
    product = number * high.astype(jnp.int32)
    rest = (product % 512) / 512 + number * low
    carry = jnp.floor(rest)
    return product // 512 + carry.astype(jnp.int32), rest - carry
