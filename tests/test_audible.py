"""Which part of a sound is kept."""

import numpy as np
import pytest

from audiojax import audible
from audiojax.features import LogMel

RATE = 16000
LOG_MEL = LogMel(sample_rate=RATE, n_fft=1600, n_mels=32, frames=50)


def tone(hertz, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)


def power(samples, hertz):
    """In dB, of a second's tone."""
    return 20 * np.log10(np.abs(np.fft.rfft(samples, RATE))[hertz])


def test_the_fewest_pixels_that_hold_the_share():
    found = audible.kept_pixels(np.array([[5.0, -9.0], [3.0, 2.0]]), held=0.75)
    assert found.tolist() == [[True, False], [True, False]]
    assert audible.kept_pixels(-np.ones((2, 3))).sum() == 0
    assert audible.kept_pixels(np.ones((2, 5)), held=1.0).all()


def test_a_mask_of_bands_parts_two_tones():
    samples = (tone(500) + tone(4000)).astype("f4")
    mask = np.zeros((32, 50))
    mask[:16] = 1
    border = audible.bands(np.array([500.0, 4000.0]), LOG_MEL)
    assert border[0] < 13
    assert border[1] > 18
    kept, left = audible.split(samples, mask, LOG_MEL)
    np.testing.assert_allclose(kept + left, samples, atol=1e-6)
    assert power(kept, 500) - power(left, 500) > 30
    assert power(left, 4000) - power(kept, 4000) > 30


def test_a_mask_of_frames_parts_in_time():
    samples = tone(1000).astype("f4")
    mask = np.zeros((32, 50))
    mask[:, 25:] = 1
    kept, left = audible.split(samples, mask, LOG_MEL)
    quiet = slice(0, RATE // 2 - 1600)
    assert np.abs(kept[quiet]).max() < 1e-3
    np.testing.assert_allclose(left[quiet], samples[quiet], atol=1e-3)
    np.testing.assert_allclose(kept[::-1][quiet], samples[::-1][quiet], atol=1e-3)


@pytest.mark.parametrize("length", [1, 3, 4, 7, 1001])
def test_the_parts_of_short_sounds_sum_to_them(length):
    samples = np.random.default_rng(0).normal(size=length).astype("f4")
    mask = np.random.default_rng(1).random((32, 50))
    kept, left = audible.split(samples, mask, LOG_MEL)
    assert kept.shape == left.shape == (length,)
    assert kept.dtype == left.dtype == np.float32
    np.testing.assert_allclose(kept + left, samples, atol=1e-6)
    everything, nothing = audible.split(samples, np.ones((32, 50)), LOG_MEL)
    np.testing.assert_allclose(everything, samples, atol=1e-6)
    np.testing.assert_allclose(nothing, 0 * samples, atol=1e-6)
