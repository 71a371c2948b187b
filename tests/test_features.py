"""The log-mel against librosa and Pillow, which the paper's code used."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile
from PIL import Image

from audiojax import features
from audiojax.errors import InputError
from audiojax.features import PRESETS, LogMel, image_statistics, log_mel

SMALL = LogMel(sample_rate=8000, n_fft=800, n_mels=24, frames=20)
# One window: a third of the compiling.
ONE = LogMel(8000, 800, window_ms=(50,), hop_ms=(25,), n_mels=24, frames=20)

# Near silence, digital silence for most of the clip, and loud ones.
REAL_CLIPS = (
    "5-189237-A-12.ogg",
    "2-127108-A-38.ogg",
    "1-100032-A-0.ogg",
    "1-31748-A-21.ogg",
    "3-154957-A-1.ogg",
    "5-186924-A-12.ogg",
)


def reference(audio, settings):
    """The image [n_mels, frames, windows] of one waveform by librosa and Pillow."""
    channels = []
    for window, hop in zip(settings.window_ms, settings.hop_ms, strict=True):
        mel = librosa.feature.melspectrogram(
            y=audio,
            sr=settings.sample_rate,
            n_fft=settings.n_fft,
            win_length=round(window * settings.sample_rate / 1000),
            hop_length=round(hop * settings.sample_rate / 1000),
            n_mels=settings.n_mels,
            htk=True,
            norm=None,
            center=True,
            pad_mode="reflect",
            power=2,
        )
        image = Image.fromarray(np.log(mel + settings.eps).astype(np.float32))
        size = (settings.frames, settings.n_mels)
        channels.append(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))
    return np.stack(channels, axis=-1)


def assert_images_agree(images, audio, settings):
    expected = np.stack([reference(clip, settings) for clip in audio])
    assert images.shape == expected.shape
    assert images.dtype == np.float32
    difference = np.abs(images - expected)
    assert difference.max() <= 0.02
    assert difference.mean() <= 1e-4


def made_signals(sample_rate, samples):
    """Sounds [6, samples] that are hard in different ways."""
    rng = np.random.default_rng(0)
    time = np.arange(samples) / sample_rate
    click = np.zeros(samples)
    click[samples // 3] = 1
    half_silent = np.where(time < time[-1] / 2, rng.normal(size=samples), 0)
    sounds = [
        rng.normal(size=samples) * 0.1,
        np.sin(2 * np.pi * 440 * time),
        np.sin(2 * np.pi * (50 + 3000 * time / time[-1]) * time),
        click,
        half_silent * 1e-4,
        np.zeros(samples),
    ]
    return np.stack(sounds).astype(np.float32)


@pytest.mark.parametrize("name", PRESETS)
def test_made_signals_agree_with_librosa_and_pillow(name):
    settings = PRESETS[name]
    # Neither a whole number of hops nor an even number of samples.
    audio = made_signals(settings.sample_rate, 4 * settings.sample_rate + 123)
    assert_images_agree(np.asarray(log_mel(audio, settings)), audio, settings)


def test_real_clips_agree_with_librosa_and_pillow(esc10_dir):
    audio = np.zeros((len(REAL_CLIPS), 5 * 44100), np.float32)
    for row, name in zip(audio, REAL_CLIPS, strict=True):
        clip, rate = soundfile.read(esc10_dir / "audio" / name, dtype="float32")
        assert rate == 44100
        row[: len(clip)] = clip[: len(row)]
    settings = PRESETS["esc50"]
    assert_images_agree(np.asarray(log_mel(audio, settings)), audio, settings)


def assert_stretched_agree(audio, lengths, settings):
    """Each clip's first samples alone, by librosa and Pillow, against `log_mel`."""
    images = np.asarray(log_mel(audio, settings, np.array(lengths, np.int32)))
    alone = [clip[:length] for clip, length in zip(audio, lengths, strict=True)]
    assert_images_agree(images, alone, settings)


@pytest.mark.filterwarnings("ignore:n_fft=800 is too large:UserWarning")
@pytest.mark.parametrize(
    "lengths",
    [
        # One sample, less than can be reflected once, the least that can.
        (1, 2, 37, 399, 400, 401),
        # Around one Fourier transform, the shortest hop, and the whole row.
        (799, 800, 801, 4000, 7999, 8000),
    ],
)
def test_stretched_clips_agree_with_librosa_on_their_true_length(lengths):
    assert_stretched_agree(made_signals(8000, 8000), lengths, SMALL)


@pytest.mark.filterwarnings("ignore:n_fft=2205 is too large:UserWarning")
def test_stretched_clips_agree_where_n_fft_is_odd():
    """Lengths of slices of UrbanSound8K: 0.05 to 4 seconds."""
    settings = PRESETS["urbansound8k"]
    lengths = (1102, 1103, 22050, 30869, 66150, 88200)
    assert_stretched_agree(made_signals(22050, 88200), lengths, settings)


def test_stretched_real_clips_agree(esc10_dir):
    audio = np.zeros((2, 5 * 44100), np.float32)
    for row, name in zip(audio, ("1-100032-A-0.ogg", "3-154957-A-1.ogg"), strict=True):
        clip, _ = soundfile.read(esc10_dir / "audio" / name, dtype="float32")
        row[: len(clip)] = clip[: len(row)]
    assert_stretched_agree(audio, (17003, 150000), PRESETS["esc50"])


def test_a_whole_clip_stretched_is_the_ordinary_image():
    audio = made_signals(8000, 4000)
    stretched = log_mel(audio, SMALL, np.full(len(audio), 4000, np.int32))
    np.testing.assert_allclose(stretched, log_mel(audio, SMALL), atol=1e-4)


def test_what_follows_the_true_length_does_not_matter():
    audio = made_signals(8000, 4000)
    length = np.array([1, 300, 1001, 2000, 3000, 3999], np.int32)
    other = audio.copy()
    for row, size in zip(other, length, strict=True):
        row[size:] = 7
    image = np.asarray(log_mel(audio, ONE, length))
    np.testing.assert_array_equal(image, log_mel(other, ONE, length))
    gradient = jax.grad(lambda audio: log_mel(audio, ONE, length).sum())(audio)
    for row, size in zip(np.asarray(gradient), length, strict=True):
        assert np.isfinite(row).all()
        assert np.abs(row[size:]).max() == 0


def test_stretching_under_vmap_and_pmap():
    audio = made_signals(8000, 4000)
    length = np.array([100, 500, 1000, 2000, 3000, 4000], np.int32)
    expected = log_mel(audio, ONE, length)
    pairs, halves = audio.reshape(3, 2, -1), length.reshape(3, 2)

    def image(batch, length):
        return log_mel(batch, ONE, length)

    for images in (
        # As an accelerator does it.
        jax.vmap(lambda a, n: features._image(ONE, a, n))(audio, length),
        jax.pmap(image, devices=jax.devices()[:3])(pairs, halves),
    ):
        np.testing.assert_allclose(
            np.reshape(images, expected.shape), expected, atol=1e-5
        )


@pytest.mark.parametrize("length", [np.ones(5, np.int32), np.ones(6, np.float32)])
def test_unfit_lengths_are_refused(length):
    with pytest.raises(InputError, match="expected the number of samples of each"):
        log_mel(made_signals(8000, 4000), SMALL, length)


@pytest.mark.filterwarnings("ignore:n_fft=800 is too large:UserWarning")
def test_the_shortest_clip_allowed_agrees_too():
    audio = made_signals(8000, SMALL.min_samples)
    assert_images_agree(np.asarray(log_mel(audio, SMALL)), audio, SMALL)


def test_presets_are_the_papers():
    esc50, urbansound, gtzan = (
        PRESETS[name] for name in ("esc50", "urbansound8k", "gtzan")
    )
    assert (esc50.sample_rate, esc50.n_fft, esc50.frames) == (44100, 4410, 250)
    assert esc50.window_lengths == (1102, 2205, 4410)
    assert esc50.hop_lengths == (441, 1102, 2205)
    assert (urbansound.sample_rate, urbansound.n_fft) == (22050, 2205)
    assert urbansound.window_lengths == (551, 1102, 2205)
    assert urbansound.hop_lengths == (220, 551, 1102)
    assert gtzan == LogMel(sample_rate=22050, n_fft=2205, frames=1500)
    assert {settings.n_mels for settings in PRESETS.values()} == {128}


def test_mel_corners_are_librosas():
    settings = LogMel(sample_rate=16000, n_fft=1600, n_mels=40)
    expected = librosa.mel_frequencies(n_mels=42, fmin=0, fmax=8000, htk=True)
    np.testing.assert_allclose(features.mel_corners(settings), expected, atol=1e-9)


@pytest.mark.parametrize("settings", [*PRESETS.values(), SMALL])
def test_mel_filters_are_triangles_even_on_the_htk_scale(settings):
    """mel = 2595 log10(1 + f / 700), as HTK's book has it (chapter 5.4)."""
    top = 2595 * np.log10(1 + settings.sample_rate / 2 / 700)
    mels = np.linspace(0, top, settings.n_mels + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.arange(settings.n_fft // 2 + 1)
    frequencies = frequencies * settings.sample_rate / settings.n_fft
    expected = [
        np.interp(frequencies, corners[band : band + 3], [0, 1, 0])
        for band in range(settings.n_mels)
    ]
    filters = features.mel_filters(settings)
    assert filters.dtype == np.float32
    np.testing.assert_allclose(filters.T, expected, atol=1e-6)
    librosas = librosa.filters.mel(
        sr=settings.sample_rate,
        n_fft=settings.n_fft,
        n_mels=settings.n_mels,
        htk=True,
        norm=None,
    )
    np.testing.assert_allclose(filters.T, librosas, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "new_size"), [(501, 250), (101, 250), (7, 7), (1, 5)])
def test_resize_weights_are_those_of_jax(size, new_size):
    signal = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
    expected = jax.image.resize(signal, (3, new_size), "linear", antialias=True)
    weights = features.resize_weights(size, new_size)
    # JAX finds the positions of the samples in float32, we in float64.
    np.testing.assert_allclose(signal @ weights, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "most", "new_size"),
    [(501, 501, 250), (101, 501, 250), (7, 9, 7), (1, 4, 5), (3000, 3001, 1500)],
)
def test_weights_of_a_size_known_later_are_the_same(size, most, new_size):
    found = np.asarray(features._stretch_weights(jnp.array(size), most, new_size))
    expected = features.resize_weights(size, new_size)
    np.testing.assert_allclose(found[:size], expected, atol=1e-7)
    assert np.abs(found[size:]).max(initial=0) == 0


def test_channels_are_as_many_as_windows():
    audio = made_signals(8000, 4000)
    images = log_mel(audio, ONE)
    assert images.shape == (6, 24, 20, 1)
    np.testing.assert_array_equal(images[..., 0], log_mel(audio, SMALL)[..., 1])


def test_lists_from_a_config_file_equal_tuples():
    listed = LogMel(window_ms=[25, 50, 100], hop_ms=[10, 25, 50])  # type: ignore
    assert listed == PRESETS["esc50"]
    assert hash(listed) == hash(PRESETS["esc50"])


def test_an_image_does_not_depend_on_its_batch():
    audio = made_signals(8000, 4000)
    images = log_mel(audio, SMALL)
    alone = [log_mel(clip[None], SMALL)[0] for clip in audio]
    np.testing.assert_allclose(images, alone, atol=1e-5)


@pytest.mark.parametrize("top_db", [20.0, 60.0, 200.0])
def test_the_floor_under_the_loudest_pixel_is_librosa_s(top_db):
    audio = made_signals(8000, 8000)
    plain = np.asarray(log_mel(audio, SMALL))
    floored = np.asarray(log_mel(audio, dataclasses.replace(SMALL, top_db=top_db)))
    decibels = 10 / np.log(10)
    for before, after in zip(plain, floored, strict=True):
        for channel in range(before.shape[-1]):
            power = np.exp(before[..., channel].astype(np.float64))
            expected = librosa.power_to_db(power, amin=1e-20, top_db=top_db)
            np.testing.assert_allclose(
                after[..., channel] * decibels, expected, atol=1e-3
            )
    assert (plain != floored).any() == (top_db < 200)


def test_silence_is_the_logarithm_of_eps():
    images = log_mel(np.zeros((1, 4000), np.float32), SMALL)
    np.testing.assert_allclose(images, np.log(SMALL.eps), rtol=1e-6)


def test_row_zero_is_the_lowest_band():
    time = np.arange(4000) / 8000
    audio = np.sin(2 * np.pi * 100 * time)[None].astype(np.float32)
    assert np.asarray(log_mel(audio, SMALL))[0, :, 10, 2].argmax() < 3


def test_the_accelerators_path_gives_the_same():
    # `log_mel` goes clip by clip on a CPU and takes the whole batch elsewhere.
    audio = made_signals(8000, 4000)
    whole = jax.vmap(lambda clip: features._image(SMALL, clip))(audio)
    np.testing.assert_allclose(whole, log_mel(audio, SMALL), atol=1e-5)


def test_under_jit_vmap_and_pmap():
    audio = made_signals(8000, 4000)
    expected = log_mel(audio, SMALL)
    pairs = audio.reshape(3, 2, -1)

    def image(batch):
        return log_mel(batch, SMALL)

    for images in (
        jax.jit(image)(audio),
        jax.vmap(image)(pairs).reshape(expected.shape),
        jax.pmap(image, devices=jax.devices()[:3])(pairs).reshape(expected.shape),
    ):
        np.testing.assert_allclose(images, expected, atol=1e-5)


def test_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    audio = jnp.asarray(made_signals(8000, 4000)[:1])
    direction = jnp.asarray(rng.normal(size=audio.shape), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(24, 20, 3)), jnp.float32)

    def loss(audio):
        return jnp.sum(log_mel(audio, SMALL)[0] * weights)

    slope = jnp.vdot(jax.grad(loss)(audio), direction)
    step = 1e-3
    ahead, behind = loss(audio + step * direction), loss(audio - step * direction)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=0.02)


def test_gradient_is_finite_in_silence():
    audio = made_signals(8000, 4000)
    gradient = jax.grad(lambda audio: log_mel(audio, SMALL).mean())(audio)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0]).max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_fft": 4409}, "shorter than the longest window.*4410 samples"),
        ({"hop_ms": (10.0, 25.0)}, "one hop for each window"),
        ({"window_ms": (), "hop_ms": ()}, "at least one"),
        ({"hop_ms": (10.0, 25.0, 0.0)}, "hop_ms.*positive"),
        ({"hop_ms": (10.0, 25.0, 0.001)}, "hop_ms.*less than one sample"),
        ({"sample_rate": 0}, "sample_rate=0.*positive"),
        ({"n_mels": -1}, "n_mels=-1.*positive"),
        ({"frames": 0}, "frames=0.*positive"),
        ({"eps": 0.0}, "eps=0.0.*positive"),
        ({"eps": float("nan")}, "eps=nan.*positive"),
        ({"top_db": -80.0}, "top_db=-80.0.*decibels"),
        ({"top_db": float("inf")}, "top_db=inf.*decibels"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        LogMel(**changes)


def test_empty_mel_bands_are_refused():
    settings = LogMel(n_mels=1000)
    with pytest.raises(InputError, match="of 1000 mel bands hold no frequency"):
        log_mel(np.zeros((1, 44100), np.float32), settings)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((1, 400), np.float32), "400 samples.*at least 401: pad"),
        (np.zeros((1, 0), np.float32), "0 samples"),
        (np.zeros(4000, np.float32), r"shape \(4000,\).*\[batch, samples\]"),
        (np.zeros((1, 4000), np.int16), "int16; expected floating point"),
    ],
)
def test_unfit_audio_is_refused_when_traced(audio, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda audio: log_mel(audio, SMALL), audio)


def test_image_statistics_are_those_of_all_pixels_at_once():
    images = np.random.default_rng(0).normal(-5, 3, (7, 4, 6, 3)).astype(np.float32)
    mean, std = image_statistics([images[:4], images[4:4], images[4:]])
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-5)
    assert mean.dtype == std.dtype == np.float32


def test_image_statistics_of_a_constant_are_exact():
    mean, std = image_statistics([np.full((2, 4, 6, 1), -13.815511, np.float32)])
    np.testing.assert_allclose(mean, [-13.815511])
    np.testing.assert_allclose(std, [0], atol=1e-6)


def test_image_statistics_of_nothing_are_refused():
    with pytest.raises(InputError, match="no clips"):
        image_statistics([])


def test_importing_features_loads_neither_tensorflow_nor_torch():
    code = (
        "import sys, audiojax.features; "
        "print(sorted({'tensorflow', 'torch', 'librosa'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
