import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiojax.augment import mixing
from audiojax.augment.rows import Draw, Rows

ROWS, FRAMES = 64, 40
random = np.random.default_rng(0)
TARGETS, ACTIVE = jnp.eye(ROWS), jnp.ones(ROWS, bool)
IMAGES = Rows(
    # Each image has one value, so that what stands in a frame tells whose it is.
    values=jnp.broadcast_to(
        jnp.arange(ROWS, dtype=jnp.float32)[:, None, None, None], (ROWS, 4, FRAMES, 3)
    ),
    length=jnp.zeros(ROWS, jnp.int32),
    targets=TARGETS,
    active=ACTIVE,
)
AUDIO = Rows(
    values=jnp.asarray(random.normal(size=(ROWS, 100)), jnp.float32),
    length=jnp.asarray(random.integers(1, 100, ROWS), jnp.int32),
    targets=TARGETS,
    active=ACTIVE,
)
KEY = jax.random.key(0)
DRAW = Draw(jax.random.split(KEY, ROWS), KEY, None)


def partner_of(row, targets):
    """The row's partner, and the share of the target that is its own."""
    others = [i for i in np.flatnonzero(targets[row]) if i != row]
    return (others or [row])[0], targets[row, row]


@pytest.mark.parametrize("rows", [IMAGES, AUDIO])
def test_mixup_mixes_values_and_targets_by_one_share(rows):
    found = jax.device_get(mixing.mixup(DRAW, rows, 0.4))
    shares = []
    for row in range(ROWS):
        partner, share = partner_of(row, found.targets)
        expected = share * rows.values[row] + (1 - share) * rows.values[partner]
        np.testing.assert_allclose(found.values[row], expected, rtol=1e-5, atol=1e-5)
        assert found.targets[row].sum() == pytest.approx(1)
        assert found.length[row] == max(rows.length[row], rows.length[partner])
        shares.append(share)
    # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1)); four errors.
    variance = 1 / (4 * (2 * 0.4 + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * np.sqrt(variance / ROWS))
    assert np.var(shares) == pytest.approx(variance, rel=0.5)


def test_cutmix_puts_a_piece_of_the_partner_in_its_place():
    found = jax.device_get(mixing.cutmix(DRAW, IMAGES, 1.0))
    widths = []
    for row in range(ROWS):
        image = found.values[row]
        owner = image[0, :, 0]
        np.testing.assert_array_equal(image, np.tile(owner[None, :, None], (4, 1, 3)))
        foreign = np.flatnonzero(owner != row)
        partner, share = partner_of(row, found.targets)
        if len(foreign):
            assert set(owner[foreign]) == {partner}
            assert foreign[-1] - foreign[0] + 1 == len(foreign)
        if partner != row:
            assert share == pytest.approx(1 - len(foreign) / FRAMES)
            widths.append(len(foreign))
    assert min(widths) < FRAMES / 5
    assert max(widths) > FRAMES * 4 / 5


def test_partners_are_the_whole_batch_each_once():
    found = jax.device_get(mixing.partners(DRAW, IMAGES))
    whose = found.values[:, 0, 0, 0]
    assert sorted(whose) == list(range(ROWS))
    np.testing.assert_array_equal(found.targets.argmax(axis=1), whose)
    assert np.mean(whose == np.arange(ROWS)) < 0.1
