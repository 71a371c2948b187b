"""Changes that mix pairs of clips, and their labels with them.

Each row gets a partner from the whole batch, on whatever device that is, so that
devices do not matter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from audiojax.augment.rows import Draw, Rows


def mixup(draw: Draw, rows: Rows, alpha: float) -> Rows:
    """Adds a partner to each row, sounds or images and targets alike, by drawn shares.

    `x = share * x + (1 - share) * partner`, with a share from Beta(alpha, alpha).
    A partner that is longer makes the row's own length its own.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", arXiv
    1710.09412.
    """
    share, other = _shares(draw, alpha), partners(draw, rows)

    def mixed(ours: jax.Array, theirs: jax.Array) -> jax.Array:
        of_row = share.reshape(-1, *[1] * (ours.ndim - 1))
        return of_row * ours + (1 - of_row) * theirs

    return rows._replace(
        values=mixed(rows.values, other.values),
        targets=mixed(rows.targets, other.targets),
        length=jnp.maximum(rows.length, other.length),
    )


def cutmix(draw: Draw, rows: Rows, alpha: float) -> Rows:
    """Puts a piece of the partner's image, in its place in time, into each image.

    The piece has all mel bands and a share of the frames from Beta(alpha, alpha); the
    partner's label gets that share.

    Source: Yun et al. 2019, "CutMix", arXiv 1905.04899, in time alone.
    """
    other, frames = partners(draw, rows), rows.values.shape[2]
    width = jnp.round(_shares(draw, alpha) * frames).astype(jnp.int32)
    start_keys = jax.vmap(jax.random.fold_in, (0, None))(draw.keys, 1)
    start = jax.vmap(lambda key, w: jax.random.randint(key, (), 0, frames - w + 1))(
        start_keys, width
    )
    place = jnp.arange(frames)[None]
    inside = (place >= start[:, None]) & (place < (start + width)[:, None])
    share = (width / frames)[:, None]
    return rows._replace(
        values=jnp.where(inside[:, None, :, None], other.values, rows.values),
        targets=(1 - share) * rows.targets + share * other.targets,
    )


def partners(draw: Draw, rows: Rows) -> Rows:
    """For each row another one of the batch; some may be themselves."""
    size, first = len(rows.values), 0
    if draw.axis_name is not None:
        first = size * lax.axis_index(draw.axis_name)
        rows = lax.all_gather(rows, draw.axis_name, tiled=True)
    order = jax.random.permutation(draw.key, len(rows.values))
    chosen = lax.dynamic_slice_in_dim(order, first, size)
    return jax.tree.map(lambda x: x[chosen], rows)


def _shares(draw: Draw, alpha: float) -> jax.Array:
    """A share from Beta(alpha, alpha) for each row: [B]."""
    return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(draw.keys)
