"""Changes to images: rolled in time, bands blotted out.

Every function takes `keys` [B], of which each decides all that is random about its
image, and images [B, mel, frames, C].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def shift(keys: jax.Array, image: jax.Array, share: float) -> jax.Array:
    """Rolls each image around in time, by up to a share of its width to either side.

    Source: as `waveforms.roll`, by whole frames.
    """
    most = round(share * image.shape[2])

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.roll(image, jax.random.randint(key, (), -most, most + 1), axis=1)

    return jax.vmap(one)(keys, image)


def mask(
    keys: jax.Array, image: jax.Array, share: float, number: int, axis: int
) -> jax.Array:
    """Blots out bands of each image, which get the mean of their channel.

    Source: Park et al. 2019, "SpecAugment", arXiv 1904.08779.

    Args:
        keys: see above.
        image: see above.
        share: the widest band, as a share of the axis; widths are drawn evenly from 0.
        number: of bands, which may overlap.
        axis: 0 for bands of mel, 1 for bands of frames.
    """
    size = image.shape[1 + axis]

    def hidden(key: jax.Array) -> jax.Array:
        width_key, start_key = jax.random.split(key)
        width = jax.random.randint(width_key, (), 0, round(share * size) + 1)
        start = jax.random.randint(start_key, (), 0, size - width + 1)
        place = jnp.arange(size)
        return (place >= start) & (place < start + width)

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        bands = jax.vmap(hidden)(jax.random.split(key, number)).any(axis=0)
        bands = jnp.expand_dims(bands, (1 - axis, 2))
        return jnp.where(bands, image.mean(axis=(0, 1), keepdims=True), image)

    return jax.vmap(one)(keys, image)
