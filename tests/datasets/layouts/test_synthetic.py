import dataclasses
import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiojax.datasets.layouts import synthetic
from audiojax.errors import InputError

RATE = 22050
# sha256 of the first 80 clips of seed 0 as 16-bit samples. Where the sounds are changed
# on purpose, count VERSION up and put the new sum here.
VERSION = 1
SUM = "570d4ab32e3018fa7ec4996f7008f56ae23780bffbf11b61b3077893e9ad7f07"


def sounds(name, count=5, seconds=1.0):
    """The bare sounds of a class, without background."""
    t = np.arange(round(seconds * RATE)) / RATE
    for seed in range(count):
        yield synthetic.SOUNDS[name](np.random.default_rng(seed), t, RATE)


def spectra(sound, size=2048):
    """Magnitudes [frames, size // 2 + 1] of windows that do not overlap."""
    frames = sound[: len(sound) // size * size].reshape(-1, size)
    return np.abs(np.fft.rfft(frames * np.hanning(size)))


def peaks(sound):
    """The strongest frequency of each window, in steps of the FFT."""
    return spectra(sound).argmax(axis=1)


def envelope(sound, size=256):
    return np.abs(sound[: len(sound) // size * size].reshape(-1, size)).max(axis=1)


def test_the_default_data_set():
    recordings = synthetic.create()
    info = recordings.info
    assert len(recordings) == 400
    assert (info.num_classes, info.folds) == (10, (1, 2, 3, 4, 5))
    assert info.classes == tuple(synthetic.SOUNDS)
    pairs = [(clip.fold, clip.label) for clip in info.clips]
    for fold in info.folds:
        for label in range(10):
            assert pairs.count((fold, label)) == 8
    assert len({clip.filename for clip in info.clips}) == 400
    assert len({clip.source for clip in info.clips}) == 400
    assert recordings.num_samples == 44100


def test_clips_are_float32_within_full_scale_and_differ():
    recordings = synthetic.create(num_folds=1)
    clips = np.stack([recordings.audio(i) for i in range(len(recordings))])
    assert clips.dtype == np.float32
    assert np.isfinite(clips).all()
    peak = np.abs(clips).max(axis=1)
    assert peak.max() < 1
    assert peak.min() > 0.05
    assert len({clip.tobytes() for clip in clips}) == len(clips)


def test_a_clip_depends_on_seed_and_number_alone():
    first, again = synthetic.create(seed=5), synthetic.create(seed=5)
    backwards = {i: first.audio(i) for i in (399, 80, 7)}
    for i in (7, 80, 399):
        np.testing.assert_array_equal(again.audio(i), backwards[i])
    other = synthetic.create(seed=6)
    assert (other.audio(7) != backwards[7]).any()
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_the_sounds_are_those_of_this_version():
    recordings = synthetic.create()
    digest = hashlib.sha256()
    for index in range(80):
        digest.update((recordings.audio(index) * 32768).astype("<i2").tobytes())
    assert (synthetic.VERSION, digest.hexdigest()) == (VERSION, SUM)


def test_every_setting_changes_the_fingerprint():
    settings = {
        "seed": 1,
        "sample_rate": 16000,
        "num_folds": 2,
        "clips_per_class": 3,
        "seconds": 1.0,
    }
    prints = {synthetic.create().fingerprint} | {
        synthetic.create(**{name: value}).fingerprint
        for name, value in settings.items()
    }
    assert len(prints) == 6
    small = synthetic.create(**settings)
    assert len(small) == 2 * 3 * 10
    assert len(small.audio(59)) == small.num_samples == 16000
    assert [dataclasses.astuple(clip)[1:3] for clip in small.info.clips[27:33]] == [
        *[((9,), 1)] * 3,
        *[((0,), 2)] * 3,
    ]


@pytest.mark.parametrize("seconds", [0.25, 0.7])
def test_short_clips_at_a_low_rate(seconds):
    recordings = synthetic.create(
        seconds=seconds, sample_rate=8000, num_folds=1, clips_per_class=5
    )
    for index in range(len(recordings)):
        clip = recordings.audio(index)
        assert len(clip) == round(seconds * 8000)
        assert np.isfinite(clip).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": -1},
        {"sample_rate": 4000},
        {"num_folds": 0},
        {"clips_per_class": 0},
        {"seconds": 0.1},
    ],
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(InputError, match="give"):
        synthetic.create(**settings)


def test_tones_stay_and_glides_go_their_way():
    for name, direction in (("pure_tone", 0), ("rising", 1), ("falling", -1)):
        for sound in sounds(name):
            ends = peaks(sound)[[0, -1]].astype(int)
            assert np.sign(ends[1] - ends[0]) == direction, name


def test_a_pure_tone_is_one_line_and_a_rich_one_many():
    for pure, rich in zip(sounds("pure_tone"), sounds("rich_tone"), strict=True):
        lines = [spectra(x, 8192)[0] for x in (pure, rich)]
        strong = [(line > 0.05 * line.max()).sum() for line in lines]
        assert strong[0] <= 5 < 15 <= strong[1]


def test_tremolo_swings_in_level_and_vibrato_in_pitch():
    for tremolo, vibrato in zip(sounds("tremolo"), sounds("vibrato"), strict=True):
        level = [envelope(x)[2:-2] for x in (tremolo, vibrato)]
        assert level[0].min() < 0.5 * level[0].max()
        assert level[1].min() > 0.8 * level[1].max()
        assert np.ptp(peaks(tremolo)) <= 1


def test_bursts_and_clicks_have_silence_between():
    for name, most in (("bursts", 0.95), ("clicks", 0.95)):
        loud = [np.mean(envelope(x) > 0.1 * np.abs(x).max()) for x in sounds(name)]
        assert 0 < min(loud) < most


def test_bells_die_away():
    for sound in sounds("bell", seconds=2.0):
        level = envelope(sound)
        assert level[-10:].max() < 0.5 * level.max()


def test_neither_trivial_nor_hopeless():
    """Mean and spread of each band's level tell some of the classes, not all."""
    recordings = synthetic.create(clips_per_class=8, num_folds=2)
    features, labels, folds = [], [], []
    for index, clip in enumerate(recordings.info.clips):
        power = spectra(recordings.audio(index), 1024)[:, 1:] ** 2
        bands = np.add.reduceat(
            power, np.unique(np.geomspace(1, 511, 40).astype(int)), 1
        )
        level = np.log(bands + 1e-6)
        features.append(np.concatenate([level.mean(0), level.std(0)]))
        labels.append(clip.label)
        folds.append(clip.fold)
    x, y, train = np.array(features), np.array(labels), np.array(folds) == 1
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05))
    accuracy = model.fit(x[train], y[train]).score(x[~train], y[~train])
    assert 0.2 < accuracy < 0.7
