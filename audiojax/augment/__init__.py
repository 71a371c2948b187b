"""Changes to training images, as pure functions of a key."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from audiojax.errors import InputError

# (keys [B], rows [B, …], targets float32 [B, classes]) -> rows, targets. A key decides
# all that is random about its row; devices that share a batch each see their rows.
Change = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a training step does to its batch, with the targets that go with it.

    Attributes:
        waveforms: changes audio [B, T], before the log-mel; None for not at all.
        images: changes images [B, mel, frames, C], after it; None for not at all.
    """

    waveforms: Change | None = None
    images: Change | None = None


@dataclasses.dataclass(frozen=True)
class Augment:
    """How far an image is changed; 0 leaves it alone.

    Attributes:
        shift: the largest circular shift in time, as a share of the width; 1 lets a
            clip begin anywhere.
        time_mask: the widest band of frames that is blotted out, as a share of the
            width (Park et al. 2019, SpecAugment, arXiv 1904.08779).
        mel_mask: the same for mel bands, as a share of the height.

    Raises:
        InputError: a share is not between 0 and 1.
    """

    shift: float = 0.0
    time_mask: float = 0.0
    mel_mask: float = 0.0

    def __post_init__(self):
        for name, share in dataclasses.asdict(self).items():
            if not 0 <= share <= 1:
                raise InputError(
                    f"config.augment.{name} is {share}; expected a share from 0 to 1"
                )


def changes(settings: Augment) -> Changes:
    """What the settings ask of a training step."""
    return Changes(
        images=lambda keys, image, targets: (images(keys, image, settings), targets)
    )


def images(keys: jax.Array, image: jax.Array, settings: Augment) -> jax.Array:
    """Changes every image of a batch in its own way.

    Args:
        keys: [B], each decides all that is random about its image.
        image: [B, mel, frames, C].
        settings: how far.

    Returns:
        [B, mel, frames, C]. What is blotted out has the mean of its channel.
    """
    return jax.vmap(functools.partial(_one, settings=settings))(keys, image)


def _one(key: jax.Array, image: jax.Array, settings: Augment) -> jax.Array:
    shift, time, mel = jax.random.split(key, 3)
    if settings.shift:
        image = _shifted(shift, image, settings.shift)
    if settings.time_mask:
        image = _masked(time, image, settings.time_mask, axis=1)
    if settings.mel_mask:
        image = _masked(mel, image, settings.mel_mask, axis=0)
    return image


def _shifted(key: jax.Array, image: jax.Array, share: float) -> jax.Array:
    most = round(share * image.shape[1])
    return jnp.roll(image, jax.random.randint(key, (), -most, most + 1), axis=1)


def _masked(key: jax.Array, image: jax.Array, share: float, axis: int) -> jax.Array:
    size = image.shape[axis]
    width_key, start_key = jax.random.split(key)
    width = jax.random.randint(width_key, (), 0, round(share * size) + 1)
    start = jax.random.randint(start_key, (), 0, size - width + 1)
    place = jnp.arange(size)
    hidden = (place >= start) & (place < start + width)
    hidden = hidden[None, :, None] if axis == 1 else hidden[:, None, None]
    return jnp.where(hidden, image.mean(axis=(0, 1), keepdims=True), image)
