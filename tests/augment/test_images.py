import jax
import numpy as np
import pytest

from audiojax.augment import images

SHAPE = (12, 20, 3)
KEYS = jax.random.split(jax.random.key(0), 64)
BATCH = jax.random.normal(jax.random.key(1), (64, *SHAPE))


def shift_of(before, after):
    """By how many frames an image was rolled; None if by none of them."""
    width = before.shape[1]
    for shift in range(-width // 2, width // 2 + 1):
        if np.array_equal(np.roll(before, shift, axis=1), after):
            return shift
    return None


def test_shift_rolls_each_clip_by_its_own_number_of_frames():
    after = np.asarray(images.shift(KEYS, BATCH, 0.2))
    shifts = [shift_of(*pair) for pair in zip(np.asarray(BATCH), after, strict=True)]
    assert set(shifts) == set(range(-4, 5))  # 0.2 of 20 frames


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mask_hides_one_band_with_the_mean(axis):
    after = np.asarray(images.mask(KEYS, BATCH, 0.25, 1, axis))
    widths = []
    for old, new in zip(np.asarray(BATCH), after, strict=True):
        hidden = np.moveaxis(old != new, axis, 0)
        rows = hidden.all(axis=(1, 2))
        assert np.array_equal(hidden.any(axis=(1, 2)), rows)  # whole rows only
        places = np.flatnonzero(rows)
        widths.append(len(places))
        if len(places):
            assert places[-1] - places[0] + 1 == len(places)  # one band
            values = np.moveaxis(new, axis, 0)[places].reshape(-1, SHAPE[2])
            mean = old.mean(axis=(0, 1))[None]
            np.testing.assert_allclose(
                values, np.repeat(mean, len(values), 0), atol=1e-6
            )
    assert set(widths) == set(range(SHAPE[axis] // 4 + 1))


def test_several_masks_hide_as_many_bands():
    after = np.asarray(images.mask(KEYS, BATCH, 0.25, 2, 1))
    bands = []
    for old, new in zip(np.asarray(BATCH), after, strict=True):
        hidden = (old != new).all(axis=(0, 2))
        bands.append(np.sum(np.diff(hidden, prepend=False) & hidden))
    assert set(bands) <= {0, 1, 2}
    assert np.mean(np.equal(bands, 2)) > 0.2
