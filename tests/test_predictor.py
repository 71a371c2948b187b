import shutil

import numpy as np
import pytest
import soundfile
import soxr
from scipy import special

import audiojax
from audiojax import files, predictor
from audiojax.clips import MODES
from audiojax.datasets import from_arrays
from audiojax.errors import InputError
from audiojax.predictor import Prediction
from audiojax.workdir import Run, Workdir
from tests import trained
from tests.trained import RATE, ROW

# Those that other tests have trained anyway are fast.
MODES_OR_SLOW = [
    mode if mode in ("pad", "crop") else pytest.param(mode, marks=pytest.mark.slow)
    for mode in MODES
]


@pytest.fixture(scope="module")
def opened(trained_of):
    """One run, of the policy that has several windows a clip."""
    return audiojax.load(trained_of("crop").workdir, seeds=[0])


def held_out(workdir, seed):
    """Logits of a run's test clips, as training wrote them."""
    return files.read_arrays(f"{workdir}/fold1-seed{seed}/predictions.npz")["logits"]


@pytest.mark.parametrize("mode", MODES_OR_SLOW)
def test_held_out_clips_have_the_logits_of_evaluation(trained_of, mode):
    found = trained_of(mode)
    both = [held_out(found.workdir, seed) for seed in (0, 1)]
    for seed in (0, 1):
        one = audiojax.load(found.workdir, seeds=[seed])
        np.testing.assert_allclose(one.logits(found.clips()), both[seed], atol=1e-5)
    ensemble = audiojax.load(found.workdir)
    logits = ensemble.logits(found.clips())
    np.testing.assert_allclose(logits, np.mean(both, axis=0), atol=1e-5)
    shares = ensemble.probabilities(found.clips())
    np.testing.assert_allclose(shares, special.softmax(logits, axis=1))
    assert ensemble.classes == trained.CLASSES


@pytest.mark.slow
def test_shifts_of_the_test_are_made_too(tmp_path):
    config = trained.make_config()
    config.data.test_shifts = 3
    found = trained.train(tmp_path / "shifted", config)
    opened = audiojax.load(found.workdir)
    expected = held_out(found.workdir, 0)
    np.testing.assert_allclose(opened.logits(found.clips()), expected, atol=1e-5)
    head = Workdir(found.workdir).variables(Run(1, 0))["params"]["fc"]
    by_hand = opened.embeddings(found.clips()) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(by_hand, expected, atol=1e-5)


@pytest.mark.slow
def test_several_labels_a_clip(tmp_path):
    label = np.random.default_rng(0).integers(0, 2, (4 * len(trained.LENGTHS), 3))
    recordings = trained.make_recordings(label=label)
    found = trained.train(tmp_path / "several", trained.make_config(), recordings)
    opened = audiojax.load(found.workdir)
    expected = held_out(found.workdir, 0)
    np.testing.assert_allclose(opened.logits(found.clips()), expected, atol=1e-5)
    shares = opened.probabilities(found.clips())
    np.testing.assert_allclose(shares, special.expit(expected), atol=1e-5)


def test_workdirs_count_alike_whatever_their_seeds(trained_of):
    crop, pad = trained_of("crop"), trained_of("pad")
    # One seed of the second workdir, by which the choice of seeds is the same in both.
    a = np.mean([held_out(crop.workdir, seed) for seed in (0, 1)], axis=0)
    b = np.mean([held_out(pad.workdir, seed) for seed in (0, 1)], axis=0)
    both = audiojax.load(crop.workdir, pad.workdir)
    logits = both.logits(crop.clips())
    np.testing.assert_allclose(logits, (a + b) / 2, atol=1e-5)
    assert [len(runs) for runs in both.runs.values()] == [2, 2]


def test_classes_are_joined_by_name(trained_of, tmp_path):
    first = trained_of("pad")
    order = (2, 0, 1)
    shutil.copytree(first.workdir, tmp_path / "turned")
    path = tmp_path / "turned" / "results.json"
    results = files.read_json(path)
    del results["sha256"]
    results["classes"] = [trained.CLASSES[i] for i in order]
    files.write_json(path, results)
    joined = audiojax.load(first.workdir, tmp_path / "turned")
    ours = audiojax.load(first.workdir).logits(first.clips())
    theirs = ours[:, np.argsort(order)]
    found = joined.logits(first.clips())
    np.testing.assert_allclose(found, (ours + theirs) / 2, atol=1e-6)


def test_embeddings_give_the_logits_by_the_head(trained_of):
    found = trained_of("crop")
    (run,) = [run for run in Workdir(found.workdir).runs if run.seed == 1]
    head = Workdir(found.workdir).variables(run)["params"]["fc"]
    one = audiojax.load(found.workdir, seeds=[1])
    features = one.embeddings(found.clips())
    assert features.dtype == np.float32
    logits = features @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, one.logits(found.clips()), atol=1e-5)
    both = audiojax.load(found.workdir).embeddings(found.clips())
    np.testing.assert_allclose(both[:, 16:], features, atol=1e-6)
    assert both.shape == (len(features), 32)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [RATE, 22050])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_are_heard_as_their_samples(tmp_path, opened, suffix, rate, channels):
    """Read by soundfile as a whole, channels averaged, resampled, stored in 16 bits."""
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, (rate * 3, channels))
    soundfile.write(tmp_path / f"a.{suffix}", sound, rate)
    samples, _ = soundfile.read(tmp_path / f"a.{suffix}", dtype="float32")
    mono = samples if channels == 1 else samples.mean(axis=1)
    mono = mono if rate == RATE else soxr.resample(mono, rate, RATE)
    stored = np.rint(mono * 32768).clip(-32768, 32767) / 32768
    expected = opened.logits([(stored, RATE)])
    found = opened.logits([tmp_path / f"a.{suffix}"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_arrays_of_any_kind_are_one_sound(opened):
    steps = np.random.default_rng(1).integers(-9999, 9999, 3 * ROW).astype(np.int16)
    floats = steps / 32768
    stereo = np.stack([floats * 1.5, floats * 0.5], axis=1)
    found = opened.logits([(steps, RATE), (floats, RATE), (stereo, RATE)])
    np.testing.assert_allclose(found[1:], found[[0, 0]], atol=1e-5)


def predicted(opened, *given, **options) -> list[Prediction]:
    found = list(opened.predictions(given, **options))
    assert all(isinstance(one, Prediction) for one in found)
    return found


def noise(seconds, rate=RATE) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 0.1, (round(seconds * rate),))


@pytest.mark.parametrize("mode", MODES_OR_SLOW)
@pytest.mark.parametrize("overlap", [0, 0.5, 0.8])
def test_windows_are_those_cut_by_hand(trained_of, mode, overlap):
    sound, length = noise(7.3), ROW / RATE
    opened = audiojax.load(trained_of(mode).workdir, seeds=[0])
    (found,) = predicted(opened, (sound, RATE), overlap=overlap)
    assert opened.window_seconds == length
    hop = length * (1 - overlap)
    np.testing.assert_allclose(found.start[:-1], hop * np.arange(len(found.start) - 1))
    assert found.start[-1] == pytest.approx(7.3 - length)
    assert 0 < found.start[-1] - found.start[-2] <= hop + 1e-6
    np.testing.assert_allclose(found.end - found.start, length)
    pieces = [sound[round(t * RATE) :][:ROW] for t in found.start]
    assert {len(piece) for piece in pieces} == {ROW}
    expected = opened.logits([(piece, RATE) for piece in pieces])
    np.testing.assert_allclose(found.window_logits, expected, atol=1e-5)
    features = opened.embeddings([(piece, RATE) for piece in pieces])
    np.testing.assert_allclose(found.window_embedding, features, atol=1e-5)
    whole = opened.logits([(sound, RATE)])
    np.testing.assert_allclose(found.logits, whole[0], atol=1e-6)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.5])
def test_a_short_sound_is_one_window(opened, seconds):
    (found,) = predicted(opened, (noise(seconds), RATE))
    np.testing.assert_array_equal(found.start, [0])
    np.testing.assert_array_equal(found.end, [seconds])
    np.testing.assert_allclose(found.window_logits[0], found.logits)


def test_a_long_file_is_read_as_a_stream(tmp_path, opened, monkeypatch):
    """Never more of it than a block; the same numbers as of the whole."""
    from audiojax import sounds

    path, rate = tmp_path / "long.wav", 16000
    soundfile.write(path, noise(40, rate), rate, subtype="FLOAT")
    (expected,) = predicted(opened, path)
    monkeypatch.setattr(sounds, "BLOCK", 1000)
    read, sizes = soundfile.SoundFile.read, []

    def counted(self, frames=-1, *arguments, **options):
        sizes.append(frames)
        return read(self, frames, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    (found,) = predicted(opened, path)
    assert set(sizes) == {1000}
    np.testing.assert_array_equal(found.window_logits, expected.window_logits)
    np.testing.assert_array_equal(found.logits, expected.logits)


def test_one_bad_sound_stops_no_other(tmp_path, opened):
    """Also one that is found to be bad when rows of it are under way."""
    good = [(noise(s), RATE) for s in (0.2, 3.0, 0.5)]
    soundfile.write(tmp_path / "nan.wav", noise(5), RATE, subtype="FLOAT")
    content = bytearray((tmp_path / "nan.wav").read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    (tmp_path / "nan.wav").write_bytes(content)
    shares = []
    found = list(
        opened.predictions(
            [good[0], tmp_path / "none.wav", good[1], tmp_path / "nan.wav", good[2]],
            on_progress=shares.append,
        )
    )
    assert "none.wav is not a readable sound file" in str(found[1])
    assert "nan.wav has samples that are not finite" in str(found[3])
    logits = [one.logits for one in found if isinstance(one, Prediction)]
    assert len(logits) == 3
    np.testing.assert_allclose(logits, opened.logits(good), atol=1e-6)
    assert sum(shares) == pytest.approx(5, abs=0.9)  # rows of the bad one may be left
    with pytest.raises(InputError, match=r"none\.wav"):
        opened.logits([good[0], tmp_path / "none.wav"])


def test_no_sounds_are_no_rows(opened):
    assert opened.logits([]).shape == (0, 3)


@pytest.mark.slow
def test_workdirs_of_other_rates_have_the_same_windows(trained_of, tmp_path):
    config = trained.make_config("pad")
    config.features.sample_rate, config.features.n_fft = 16000, 1600
    recordings = trained.make_recordings()
    fast = from_arrays(
        [np.repeat(recordings.audio(i), 2) for i in range(len(recordings))],
        [trained.CLASSES[clip.labels[0]] for clip in recordings.info.clips],
        16000,
        classes=trained.CLASSES,
        fold=[clip.fold for clip in recordings.info.clips],
    )
    trained.train(tmp_path / "fast", config, fast)
    paths = trained_of("pad").workdir, tmp_path / "fast"
    sound = (noise(4.0, 11025), 11025)
    (both,) = predicted(audiojax.load(*paths, seeds=[0]), sound)
    each = [predicted(audiojax.load(p, seeds=[0]), sound)[0] for p in paths]
    mean = np.mean([one.window_logits for one in each], axis=0)
    np.testing.assert_allclose(both.window_logits, mean, atol=1e-6)


def test_a_workdir_may_be_named_from_here(trained_of, monkeypatch):
    workdir = trained_of("pad").workdir
    monkeypatch.chdir(workdir)
    (found,) = predicted(audiojax.load(".", seeds=[1]), (noise(0.3), RATE))
    expected = audiojax.load(workdir, seeds=[1]).logits([(noise(0.3), RATE)])
    np.testing.assert_array_equal(found.logits, expected[0])


def refused(*workdirs, **options):
    with pytest.raises(InputError) as caught:
        audiojax.load(*workdirs, **options)
    return str(caught.value)


def edited(source, target, edit):
    """A copy of a workdir, its results changed."""
    shutil.copytree(source, target)
    results = files.read_json(target / "results.json")
    del results["sha256"]
    edit(results)
    files.write_json(target / "results.json", results)
    return target


def test_what_is_no_workdir_is_named(tmp_path):
    assert f"{tmp_path}/none: no results.json" in refused(tmp_path / "none")
    assert "no workdir given" in refused()


def test_other_classes_and_tasks_are_named(trained_of, tmp_path):
    first = trained_of("pad").workdir
    other = edited(
        first, tmp_path / "a", lambda r: r.update(classes=["hiss", "hum", "boom"])
    )
    message = refused(first, other)
    assert (
        f"{other}: other classes than {first}; it lacks roar and adds boom" in message
    )
    other = edited(first, tmp_path / "b", lambda r: r.update(task="multi_label"))
    assert f"{other}: its task is multi_label" in refused(first, other)


def test_the_same_workdir_twice_is_named(trained_of):
    first = trained_of("pad").workdir
    assert "the same workdir twice" in refused(first, f"{first}/../{first[1:]}", first)


def test_unfinished_runs_are_used_when_told(trained_of, tmp_path):
    def edit(results):
        results["config"]["sweep"]["seeds"] = [0, 1, 7]

    path = edited(trained_of("pad").workdir, tmp_path / "a", edit)
    assert "fold1-seed7 can't be used yet" in refused(path)
    opened = audiojax.load(path, unfinished=True)
    assert opened.runs == {str(path): ["fold1-seed0", "fold1-seed1"]}
    assert audiojax.load(path, seeds=[0]).runs == {str(path): ["fold1-seed0"]}


def test_a_newer_format_is_named(trained_of, tmp_path):
    source = Workdir(trained_of("pad").workdir)
    shutil.copytree(source.path, tmp_path / "a")
    folder = tmp_path / "a" / Run(1, 0).name / "checkpoints"
    for manifest in folder.glob("*/manifest.json"):
        files.write_json(manifest, files.read_json(manifest) | {"format": 99})
    assert "has format 99" in refused(tmp_path / "a", seeds=[0])
    path = edited(source.path, tmp_path / "b", lambda r: r.update(format=99))
    assert "was written by a newer version of audiojax" in refused(path)


@pytest.mark.parametrize("given", ["a.wav", (np.zeros(9), 8000), np.zeros(9)])
def test_one_clip_is_no_list_of_clips(opened, given):
    with pytest.raises(InputError, match="give a list of paths"):
        opened.logits(given)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ((np.zeros((0,)), RATE), "the array is empty"),
        ((np.zeros((2, 9)), RATE), "has 9 channels of 2 samples; transpose it"),
        ((np.zeros(9, complex), RATE), "has type complex128"),
        ((np.full(9, np.nan), RATE), "not finite"),
        ((np.zeros(9), 0), "the array's rate is 0 Hz"),
    ],
)
def test_arrays_that_are_no_audio_are_refused(opened, clip, message):
    with pytest.raises(InputError, match=message):
        opened.logits([clip])


@pytest.mark.parametrize("overlap", [1, -0.1, 2.0])
def test_an_overlap_out_of_range_is_named(opened, overlap):
    with pytest.raises(InputError, match="give a share of a window"):
        next(opened.predictions([(noise(1), RATE)], overlap=overlap))


@pytest.mark.slow
def test_windows_need_one_length(trained_of, tmp_path):
    config = trained.make_config()
    config.data.clip_seconds = 0.25
    other = trained.train(tmp_path / "short", config).workdir
    both = audiojax.load(trained_of("pad").workdir, other)
    assert both.window_seconds is None
    with pytest.raises(InputError, match=r"hear windows of 0\.5 s, 0\.25 s"):
        next(both.predictions([(noise(1), RATE)]))
    assert both.logits([(noise(1), RATE)]).shape == (1, 3)


def test_load_is_there_and_imported_late():
    assert audiojax.load is predictor.load
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = audiojax.lode  # pyright: ignore[reportAttributeAccessIssue]
