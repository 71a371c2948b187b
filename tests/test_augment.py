import jax
import numpy as np
import pytest

from audiojax import augment
from audiojax.augment import Augment
from audiojax.errors import InputError

SHAPE = (12, 20, 3)


def batch(size=64):
    random = np.random.default_rng(0)
    return random.normal(size=(size, *SHAPE)).astype(np.float32)


def changed(settings, image, seed=0):
    function = jax.jit(augment.images, static_argnums=2)
    keys = jax.random.split(jax.random.key(seed), len(image))
    return np.asarray(function(keys, image, settings))


def test_nothing_is_changed_by_default():
    np.testing.assert_array_equal(changed(Augment(), batch()), batch())


def test_the_key_decides():
    settings = Augment(shift=1.0, time_mask=0.3, mel_mask=0.3)
    once, again = changed(settings, batch()), changed(settings, batch())
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - changed(settings, batch(), seed=1)).max() > 0


def shift_of(before, after):
    """By how many frames an image was rolled; None if by none of them."""
    width = before.shape[1]
    for shift in range(-width // 2, width // 2 + 1):
        if np.array_equal(np.roll(before, shift, axis=1), after):
            return shift
    return None


def test_shift_rolls_each_clip_by_its_own_number_of_frames():
    before = batch()
    after = changed(Augment(shift=0.2), before)
    shifts = [shift_of(*pair) for pair in zip(before, after, strict=True)]
    assert set(shifts) == set(range(-4, 5))  # 0.2 of 20 frames


@pytest.mark.parametrize(("name", "axis"), [("time_mask", 1), ("mel_mask", 0)])
def test_masks_hide_one_band_with_the_mean(name, axis):
    before = batch()
    after = changed(Augment(**{name: 0.25}), before)
    widths = []
    for old, new in zip(before, after, strict=True):
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


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_of_one_is_refused(share):
    with pytest.raises(InputError, match=f"config.augment.shift is {share}"):
        Augment(shift=share)
