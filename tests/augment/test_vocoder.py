import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from scipy.interpolate import BSpline

from audiojax.augment import vocoder
from audiojax.augment.vocoder import time_stretch_and_pitch_shift
from audiojax.errors import InputError
from audiojax.features import PRESETS, log_mel

RATE = 44100
ONE_SECOND = 44100
# The CPU's Fourier transform rounds by where its input lies in memory, so that the same
# call may differ in the last bit.
ROUNDING = 1e-5
# The paper's draws, and the bounds.
USUAL = [(0.9, -2), (1.2, 2), (1.1, -1), (1.05, 0), (1.0, 2), (1.0, -2), (0.9, 0)]
BOUNDS = [(0.5, 12), (2.0, -12), (0.5, -12), (2.0, 12), (1.0, 0.3), (1.3, -7.5)]


def changed(clips, rate, semitones, length=None):
    """The clips [B, T] all changed in one way, with their lengths, as NumPy's."""
    clips = np.asarray(clips, np.float32)
    count, size = clips.shape
    audio, lengths = time_stretch_and_pitch_shift(
        jnp.asarray(clips),
        jnp.full(count, size if length is None else length, jnp.int32),
        jnp.full(count, rate, jnp.float32),
        jnp.full(count, semitones, jnp.float32),
    )
    return np.asarray(audio), np.asarray(lengths)


def librosa_changed(clip, rate, semitones):
    """The clip changed by one pass of librosa's vocoder and one resampling, in float64.

    That is what librosa itself does for a pitch shift or a stretch alone. For both it
    needs two passes; each smears the phases of what is not a steady tone in its own
    way, so that the two sounds are alike, but not their samples.
    """
    ratio = 2 ** (semitones / 12)
    clip = clip.astype(np.float64)
    changed = librosa.effects.time_stretch(clip, rate=float(np.float32(rate)) / ratio)
    if semitones:
        changed = librosa.resample(changed, orig_sr=RATE * ratio, target_sr=RATE)
    size = round(len(clip) / float(np.float32(rate)))
    return librosa.util.fix_length(changed, size=size)


@functools.cache
def sound():
    """A second of decaying harmonics under noise, with an attack in the middle."""
    random = np.random.default_rng(0)
    time = np.arange(ONE_SECOND) / RATE
    tones = sum(np.sin(2 * np.pi * 220 * k * time) / k for k in range(1, 40))
    decay = np.exp(-3 * (time % 0.5))
    clip = 0.2 * tones * decay + 0.01 * random.normal(size=ONE_SECOND)
    return clip.astype(np.float32)


def images(clips, length):
    clips = jnp.asarray(clips, jnp.float32)
    return np.asarray(log_mel(clips, PRESETS["esc50"], jnp.full(len(clips), length)))


def frequency(tone):
    """Hz of a steady tone, from the phases of the middle of it."""
    middle = tone[len(tone) // 4 : len(tone) * 3 // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 2**18))
    peak = np.argmax(spectrum)
    below, at, above = np.log(spectrum[peak - 1 : peak + 2])
    offset = (below - above) / (2 * (below - 2 * at + above))
    return (peak + offset) * RATE / 2**18


@pytest.mark.parametrize(("rate", "semitones"), USUAL + BOUNDS)
def test_agrees_with_librosa(rate, semitones):
    """To 1 % of the sound, which is the noise: the phase of a bin that holds next to
    nothing is chance, and single and double precision differ in it."""
    clip = sound()
    (ours,), (length,) = changed([clip], rate, semitones)
    theirs = librosa_changed(clip, rate, semitones)[: len(clip)]
    assert length == len(theirs)
    assert (ours[length:] == 0).all()
    # At the very ends the resampler of librosa rings.
    inner = slice(100, length - 100)
    error = np.linalg.norm((ours[:length] - theirs)[inner])
    assert error < 0.01 * np.linalg.norm(theirs[inner])


@pytest.mark.parametrize(("rate", "semitones"), USUAL)
def test_log_mel_agrees_with_librosa(rate, semitones):
    """On average to 0.1, and 97 values of a hundred to 0.5.

    These are natural logarithms, of a range of some 15, and noise that is made anew
    differs from itself by 0.5 and more. What is further off are two or three of the 128
    bands where the pitch is lowered: above what was half the sample rate librosa leaves
    nothing at all, and the spline an image that is 40 dB weaker than the sound.
    """
    clip = sound()
    ours, (length,) = changed([clip], rate, semitones)
    theirs = librosa_changed(clip, rate, semitones)
    theirs = librosa.util.fix_length(theirs, size=len(clip))
    difference = np.abs(images(ours, length) - images([theirs], length))
    assert difference.mean() < 0.1
    assert np.quantile(difference, 0.97) < 0.5


@pytest.mark.parametrize("hertz", [110.0, 1000.0, 5000.0])
@pytest.mark.parametrize(("rate", "semitones"), USUAL + BOUNDS)
def test_pitch_of_tones(hertz, rate, semitones):
    clip = np.sin(2 * np.pi * hertz * np.arange(ONE_SECOND) / RATE)
    (ours,), (length,) = changed([clip], rate, semitones)
    cents = 1200 * np.log2(frequency(ours[:length]) / hertz) - 100 * semitones
    assert abs(cents) < 5


def test_lengths_are_exact():
    random = np.random.default_rng(0)
    length = random.integers(0, 1000, 200).astype(np.int32)
    rate = random.uniform(0.5, 2, 200).astype(np.float32)
    # Ties: 3 / 2 and 5 / 2 both round to 2.
    length[:4], rate[:4] = [3, 5, 7, 1], 2
    wanted = [min(1000, round(n / float(r))) for n, r in zip(length, rate, strict=True)]
    _, found = time_stretch_and_pitch_shift(
        jnp.zeros((200, 1000)), jnp.asarray(length), jnp.asarray(rate), jnp.ones(200)
    )
    np.testing.assert_array_equal(found, wanted)


def test_rows_without_change_are_the_same_bits():
    random = np.random.default_rng(0)
    clips = random.normal(size=(3, 5000)).astype(np.float32)
    length = np.array([5000, 100, 3000], np.int32)
    ours, lengths = time_stretch_and_pitch_shift(
        clips, length, np.array([1, 1, 1.1], np.float32), np.zeros(3, np.float32)
    )
    np.testing.assert_array_equal(ours[:2], clips[:2])
    np.testing.assert_array_equal(lengths[:2], length[:2])
    assert not np.array_equal(ours[2], clips[2])


def test_each_row_is_changed_in_its_own_way():
    rates, semitones = np.array(USUAL, np.float32).T
    clips = np.stack([sound()[:20000]] * len(rates))
    together, _ = time_stretch_and_pitch_shift(
        clips, np.full(len(rates), 20000), rates, semitones
    )
    for row, rate, semitone in zip(together, rates, semitones, strict=True):
        (alone,), _ = changed(clips[:1], rate, semitone)
        np.testing.assert_allclose(row, alone, rtol=0, atol=ROUNDING)


def test_what_follows_a_clip_is_not_heard():
    clip = sound()[:20000]
    followed = np.concatenate([clip[:9000], np.ones(11000, np.float32)])
    (quiet,), _ = changed([clip * (np.arange(20000) < 9000)], 0.9, 1, length=9000)
    (ours,), (length,) = changed([followed], 0.9, 1, length=9000)
    assert length == 10000
    np.testing.assert_allclose(ours, quiet, rtol=0, atol=ROUNDING)
    assert (ours[length:] == 0).all()


def test_accelerators_get_the_same():
    """Their code, compiled for the CPU."""
    one = functools.partial(vocoder._one, accumulate=vocoder._at_once)
    rates = jnp.array([1.1, 1.0, 0.5])
    semitones = jnp.array([-2.0, 0.0, 12.0])
    clips = jnp.stack([sound()[:20000]] * 3)
    length = jnp.array([20000, 20000, 9000])
    batched, lengths = jax.jit(jax.vmap(one))(clips, length, rates, semitones)
    ours, wanted = time_stretch_and_pitch_shift(clips, length, rates, semitones)
    np.testing.assert_array_equal(lengths, wanted)
    np.testing.assert_array_equal(batched[1], clips[1])
    assert np.linalg.norm(batched - ours) < 1e-3 * np.linalg.norm(ours)


def test_pmap_and_vmap():
    clips = np.stack([sound()[:8000]] * 4).reshape(2, 2, 8000)
    arguments = (
        clips,
        np.full((2, 2), 8000),
        np.array([[1.1, 0.9], [1, 1.2]], np.float32),
        np.array([[0, 1], [0, -2]], np.float32),
    )
    flat = [x.reshape(4, *x.shape[2:]) for x in arguments]
    wanted, _ = time_stretch_and_pitch_shift(*flat)
    for mapped in (jax.pmap, jax.vmap):
        ours, _ = mapped(time_stretch_and_pitch_shift)(*arguments)
        np.testing.assert_allclose(ours.reshape(4, -1), wanted, atol=2e-4)


@pytest.mark.parametrize(("rate", "semitones"), [*USUAL, *BOUNDS])
def test_no_clicks_and_no_noise(rate, semitones):
    size = 20000
    time = np.arange(size) / RATE
    silence, click, sample, square = np.zeros((4, size))
    click[size // 2] = 1
    sample[0] = 1
    square[:] = np.sign(np.sin(2 * np.pi * 441 * time + 0.1))
    tone = 0.5 * np.sin(2 * np.pi * 300 * time)
    ours, (length, *_) = changed(
        [silence, click, sample, square, tone], rate, semitones
    )
    assert np.isfinite(ours).all()
    assert (ours[0] == 0).all()
    largest = np.abs(ours).max(axis=1)
    assert largest[1] < 1.5
    assert largest[2] < 1.5
    # Edges of what has no frequencies above some overshoot, as those of librosa do.
    assert (
        largest[3] < 1.1 * max(np.abs(librosa_changed(square, rate, semitones))) + 0.2
    )
    # The steepest slope of a tone is that of its frequency, at the ends too; at the
    # last frame, of which the tone fills a part, the vocoder is as steep in librosa.
    steepest = 0.5 * 2 * np.pi * 300 * 2 ** (semitones / 12) / RATE
    theirs = np.abs(np.diff(librosa_changed(tone, rate, semitones)[: length - 100]))
    slopes = np.abs(np.diff(ours[4, :length]))
    assert slopes.max() < max(2 * steepest, 1.1 * theirs.max())
    assert largest[4] < 0.75


@pytest.mark.parametrize("length", [0, 1, 2, 511, 512, 513])
def test_very_short_clips(length):
    clip = np.ones((1, 3000), np.float32)
    for rate, semitones in [(0.5, 12), (2.0, -12), (1.1, 0)]:
        (ours,), (found,) = changed(clip, rate, semitones, length)
        assert found == round(length / float(np.float32(rate)))
        assert np.isfinite(ours).all()
        assert (ours[found:] == 0).all()
        assert np.abs(ours).max() < 2


def test_beyond_the_bounds_is_as_at_them():
    clip = [sound()[:5000]]
    far, length = changed(clip, 5.0, 20)
    bound, wanted = changed(clip, vocoder.MAX_RATE, vocoder.MAX_SEMITONES)
    np.testing.assert_array_equal(length, wanted)
    np.testing.assert_allclose(far, bound, atol=1e-6)


def test_weights_are_those_of_the_b_spline():
    fraction = 0.3
    wanted = [
        BSpline.basis_element(np.arange(-3, 4))(fraction - tap) for tap in range(-2, 4)
    ]
    found = vocoder._SPLINE @ fraction ** np.arange(6)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_bad_input_is_named():
    one = jnp.ones(1)
    with pytest.raises(InputError, match="floating point"):
        time_stretch_and_pitch_shift(jnp.zeros((1, 9), jnp.int32), one, one, one)
    with pytest.raises(InputError, match=r"rate has shape \(2,\) for 1 clips"):
        time_stretch_and_pitch_shift(jnp.zeros((1, 9)), one, jnp.ones(2), one)
    with pytest.raises(InputError, match="cut the clips"):
        time_stretch_and_pitch_shift(jnp.zeros((1, 2**21)), one, one, one)
