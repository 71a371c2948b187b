"""Changes to waveforms: stretched, shifted, moved, louder or softer, noisy.

Every function takes `keys` [B], of which each decides all that is random about its
row, and audio float32 [B, T]; `length` int32 [B] is how many of a row's first samples
are the clip's own, zeros follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from audiojax.augment import vocoder


def gain(keys: jax.Array, audio: jax.Array, decibels: float) -> jax.Array:
    """Makes each row louder or softer by up to so many decibels, drawn evenly.

    Source: Schlüter and Grill 2015, "Exploring Data Augmentation for Improved Singing
    Voice Detection with Neural Networks", where loudness is one of the changes.
    """
    drawn = _uniform(keys, -decibels, decibels)
    return audio * 10 ** (drawn / 20)[:, None]


def roll(
    keys: jax.Array, audio: jax.Array, length: jax.Array, share: float
) -> jax.Array:
    """Rolls each clip around in time, by up to a share of its length to either side.

    Source: the random time delays of Piczak 2015, "Environmental Sound Classification
    with Convolutional Neural Networks", made circular.
    """
    by = jnp.round(_uniform(keys, -share, share) * length).astype(jnp.int32)
    place = jnp.arange(audio.shape[1])[None]
    own = jnp.maximum(length, 1)[:, None]
    rolled = jnp.take_along_axis(audio, (place - by[:, None]) % own, axis=1)
    return jnp.where(place < length[:, None], rolled, audio)


def offset(
    keys: jax.Array, audio: jax.Array, length: jax.Array, share: float
) -> tuple[jax.Array, jax.Array]:
    """Moves each clip in its row, by up to a share of the row to either side.

    What leaves the row is cut, zeros follow on the other side. At least one sample of
    the clip stays.

    Source: random padding and cropping in time, Nasiri and Hu 2021, "SoundCLR",
    arXiv 2103.01929.

    Returns:
        Audio [B, T]; and lengths [B], with the zeros before a clip that was moved
        back counted as its own.
    """
    size = audio.shape[1]
    by = jnp.round(_uniform(keys, -share, share) * size).astype(jnp.int32)
    by = jnp.clip(by, 1 - length, size - 1)
    place = jnp.arange(size)[None] - by[:, None]
    moved = jnp.take_along_axis(audio, jnp.clip(place, 0, size - 1), axis=1)
    inside = (place >= 0) & (place < length[:, None])
    return jnp.where(inside, moved, 0), jnp.clip(length + by, 1, size)


def noise(
    keys: jax.Array, audio: jax.Array, length: jax.Array, decibels: Sequence[float]
) -> jax.Array:
    """Adds white Gaussian noise at a signal-to-noise ratio drawn between two.

    The ratio is that of the powers over a clip's own samples; silence stays silent.

    Source: Schlüter and Grill 2015, as for `gain`, at a ratio instead of a level.

    Args:
        keys: see above.
        audio: see above.
        length: see above.
        decibels: the lowest and the highest ratio.
    """
    split = jax.vmap(jax.random.split)(keys)
    ratio = 10 ** (_uniform(split[:, 0], *decibels) / 10)
    own = jnp.arange(audio.shape[1])[None] < length[:, None]
    power = jnp.sum(jnp.square(audio), axis=1) / jnp.maximum(length, 1)
    drawn = jax.vmap(lambda key: jax.random.normal(key, audio.shape[1:]))(split[:, 1])
    return audio + jnp.where(own, drawn * jnp.sqrt(power / ratio)[:, None], 0)


def stretch_and_shift(
    keys: jax.Array,
    audio: jax.Array,
    length: jax.Array,
    active: jax.Array,
    rates: Sequence[float],
    semitones: Sequence[float],
) -> tuple[jax.Array, jax.Array]:
    """Shifts the pitch of each clip by whole semitones, then stretches it in time.

    Source: the augmentation of Palanisamy, Singhania and Yao 2020, arXiv 2007.11154.

    Args:
        keys: see above.
        audio: see above.
        length: see above.
        active: bool [B]; the others are left alone, and cost nothing on a CPU.
        rates: the smallest and the largest to draw from, evenly.
        semitones: the lowest and the highest number, likewise.

    Returns:
        Audio [B, T] and lengths [B], as `vocoder.time_stretch_and_pitch_shift`.
    """
    split = jax.vmap(jax.random.split)(keys)
    low, high = map(int, semitones)
    steps = jax.vmap(lambda key: jax.random.randint(key, (), low, high + 1))
    return vocoder.time_stretch_and_pitch_shift(
        audio,
        length,
        jnp.where(active, _uniform(split[:, 0], *rates), 1),
        jnp.where(active, steps(split[:, 1]), 0),
    )


def _uniform(keys: jax.Array, low: float, high: float) -> jax.Array:
    """A number for each row, from low to high: [B]."""
    return jax.vmap(lambda k: jax.random.uniform(k, (), minval=low, maxval=high))(keys)
