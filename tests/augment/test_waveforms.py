import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiojax.augment import waveforms

SIZE, ROWS = 500, 64
KEYS = jax.random.split(jax.random.key(0), ROWS)
random = np.random.default_rng(0)
AUDIO = jnp.asarray(random.normal(0, 0.1, (ROWS, SIZE)), jnp.float32)
WHOLE = jnp.full(ROWS, SIZE)
# Clips of their own lengths, zeros after them.
LENGTH = jnp.asarray(random.integers(1, SIZE, ROWS), jnp.int32)
SHORT = jnp.where(jnp.arange(SIZE)[None] < LENGTH[:, None], AUDIO, 0)


def test_gain_is_drawn_evenly_in_decibels():
    after = np.asarray(waveforms.gain(KEYS, AUDIO, 6.0))
    factors = after[:, 0] / AUDIO[:, 0]
    np.testing.assert_allclose(after, AUDIO * factors[:, None], rtol=1e-5)
    decibels = 20 * np.log10(factors)
    assert -6 <= decibels.min() < -5
    assert 5 < decibels.max() <= 6
    assert abs(decibels.mean()) < 4 * (12 / np.sqrt(12)) / np.sqrt(ROWS)


@pytest.mark.parametrize(("audio", "length"), [(AUDIO, WHOLE), (SHORT, LENGTH)])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_roll_is_numpys_of_the_clips_own_samples(audio, length, share):
    after = np.asarray(waveforms.roll(KEYS, audio, length, share))
    shifts = []
    for old, new, n in zip(*map(np.asarray, (audio, after, length)), strict=True):
        assert not new[n:].any()
        most = round(share * n)
        found = [
            by
            for by in range(-most, most + 1)
            if np.array_equal(np.roll(old[:n], by), new[:n])
        ]
        assert found
        shifts.append(min(found, key=abs) / n)
    # Around the whole clip, what is further than half of it comes from the other side.
    assert max(shifts) > 0.4 * share
    assert min(shifts) < -0.4 * share


@pytest.mark.parametrize(("audio", "length"), [(AUDIO, WHOLE), (SHORT, LENGTH)])
def test_offset_moves_and_cuts(audio, length):
    after, new_length = map(np.asarray, waveforms.offset(KEYS, audio, length, 0.4))
    arrays = map(np.asarray, (audio, after, length, new_length))
    for old, new, n, m in zip(*arrays, strict=True):
        by = np.flatnonzero(new)[0] if old[0] in new else m - n
        expected = np.zeros(SIZE, np.float32)
        source = old[:n][max(-by, 0) : SIZE - max(by, 0)]
        expected[max(by, 0) : max(by, 0) + len(source)] = source
        np.testing.assert_array_equal(new, expected)
        assert m == min(n + by, SIZE) >= 1
        assert abs(by) <= 0.4 * SIZE
        assert not new[m:].any()


@pytest.mark.parametrize(("audio", "length"), [(AUDIO, WHOLE), (SHORT, LENGTH)])
def test_noise_has_the_ratio_that_is_drawn(audio, length):
    after = np.asarray(waveforms.noise(KEYS, audio, length, (5.0, 5.0)))
    rows = list(zip(*map(np.asarray, (after, audio, length)), strict=True))
    added = np.concatenate([(a - b)[:n] / b[:n].std() for a, b, n in rows if n > 99])
    # A ratio of 5 dB, to five standard errors of a mean square.
    expected, error = 10 ** (-5 / 10), np.sqrt(2 / len(added))
    assert np.mean(added**2) == pytest.approx(expected, rel=5 * error + 0.02)
    assert not any(row[n:].any() for row, _, n in rows)


def test_noise_ratios_lie_between_the_ends():
    after = np.asarray(waveforms.noise(KEYS, AUDIO, WHOLE, (0.0, 20.0)))
    ratio = 10 * np.log10((AUDIO**2).mean(axis=1) / ((after - AUDIO) ** 2).mean(axis=1))
    assert -1 < ratio.min() < 4
    assert 16 < ratio.max() < 21


def test_silence_stays_silent():
    silence = jnp.zeros((ROWS, SIZE))
    for after in (
        waveforms.gain(KEYS, silence, 6.0),
        waveforms.noise(KEYS, silence, WHOLE, (0.0, 20.0)),
        waveforms.offset(KEYS, silence, WHOLE, 0.5)[0],
        waveforms.roll(KEYS, silence, WHOLE, 1.0),
    ):
        np.testing.assert_array_equal(after, silence)
