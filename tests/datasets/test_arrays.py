import os
import subprocess
import sys

import numpy as np
import pytest

from audiojax import datasets
from audiojax.datasets import from_arrays
from audiojax.errors import InputError
from audiojax.training import trainer
from tests import tiny


def noises(n=8, size=50, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, size))


NAMES = ["dog", "cat"] * 4
FOLDS = [1, 1, 1, 1, 2, 2, 2, 2]


def refusal(*given, **more):
    with pytest.raises(InputError) as error:
        from_arrays(*given, **more)
    return str(error.value)


def test_a_matrix_and_names():
    audio = noises()
    recordings = from_arrays(audio, NAMES, 1000, fold=FOLDS)
    info = recordings.info
    assert (info.name, info.classes, info.sample_rate) == (
        "arrays",
        ("cat", "dog"),
        1000,
    )
    assert [clip.label for clip in info.clips] == [1, 0] * 4
    assert [clip.fold for clip in info.clips] == FOLDS
    assert [clip.filename for clip in info.clips][:2] == ["clip0", "clip1"]
    assert info.official_folds
    assert not info.multi_label
    assert recordings.in_memory
    np.testing.assert_array_equal(recordings.lengths, [50] * 8)
    for index, samples in enumerate(audio):
        assert recordings.audio(index).dtype == np.float32
        np.testing.assert_array_equal(
            recordings.audio(index), samples.astype(np.float32)
        )


def test_clips_of_any_length_channels_and_type():
    stereo = np.array([[0.5, -0.25]] * 10, np.float32)
    whole = np.array([-32768, 16384, 0], np.int16)
    whole2 = np.array([[2**30, 0], [-(2**31), 0]], np.int32)
    audio = [stereo, whole, whole2, [0.25, 0.5]]
    recordings = from_arrays(audio, ["a", "b"] * 2, 1000, fold=[1, 1, 2, 2])
    np.testing.assert_array_equal(recordings.lengths, [10, 3, 2, 2])
    np.testing.assert_array_equal(recordings.audio(0), [0.125] * 10)
    np.testing.assert_array_equal(recordings.audio(1), [-1, 0.5, 0])
    np.testing.assert_array_equal(recordings.audio(2), [0.25, -0.5])
    np.testing.assert_array_equal(recordings.audio(3), [0.25, 0.5])


@pytest.mark.parametrize(
    ("label", "classes", "found", "labels"),
    [
        ([0, 1] * 4, None, ("0", "1"), [0, 1] * 4),
        ([30, 4] * 4, None, ("4", "30"), [1, 0] * 4),
        (np.array([0, 1] * 4, np.uint8), ["x", "y"], ("x", "y"), [0, 1] * 4),
        (NAMES, ["dog", "cat"], ("dog", "cat"), [0, 1] * 4),
        (np.array(NAMES), None, ("cat", "dog"), [1, 0] * 4),
        (np.array(NAMES, object), None, ("cat", "dog"), [1, 0] * 4),
    ],
)
def test_labels_by_name_or_number(label, classes, found, labels):
    info = from_arrays(noises(), label, 1000, classes=classes, fold=FOLDS).info
    assert info.classes == found
    assert [clip.label for clip in info.clips] == labels


def test_several_labels(caplog):
    hot = np.array([[1, 0], [1, 1], [0, 0], [0, 1]] * 2)
    info = from_arrays(noises(), hot, 1000, classes=["rain", "wind"], fold=FOLDS).info
    assert info.multi_label
    assert [clip.labels for clip in info.clips] == [(0,), (0, 1), (), (1,)] * 2
    assert caplog.text == ""
    from_arrays(noises(), np.eye(2)[[0, 1] * 4], 1000, fold=FOLDS)
    assert "give label.argmax(axis=1)" in caplog.text


def test_folds_are_made_where_none_are_given():
    groups = [0, 0, 1, 1, 2, 2, 3, 3]
    recordings = from_arrays(noises(), [0, 1] * 4, 1000, group=groups, num_folds=2)
    info = recordings.info
    assert not info.official_folds
    assert info.folds == (1, 2)
    for source in "0123":
        assert len({clip.fold for clip in info.clips if clip.source == source}) == 1
    again = from_arrays(noises(), [0, 1] * 4, 1000, group=groups, num_folds=2)
    assert again.info == info
    assert again.fingerprint == recordings.fingerprint


def test_the_fingerprint_names_the_content():
    def fingerprint(audio=None, label=NAMES, rate=1000, **more):
        audio = noises() if audio is None else audio
        return from_arrays(audio, label, rate, fold=FOLDS, **more).fingerprint

    others = [
        fingerprint(noises(seed=1)),
        fingerprint(noises().astype(np.float32)),
        fingerprint(label=NAMES[::-1]),
        fingerprint(rate=2000),
        fingerprint(filename=list("abcdefgh")),
    ]
    assert len({fingerprint(), *others}) == 6


def changed(index, value):
    audio = list(noises())
    audio[index] = value
    return audio


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        (changed(3, np.array([0.0, np.nan])), "clip3 has samples that are not finite"),
        (changed(3, np.array([0.0, -np.inf])), "clip3 has samples that are not finite"),
        (
            changed(3, np.array([0.0, -3e4])),
            "clip3 has samples up to 30000",
        ),
        (changed(3, np.zeros(0)), "clip3 is empty"),
        (changed(3, np.zeros((0, 2))), "clip3 is empty"),
        (
            changed(3, np.zeros((2, 50))),
            "clip3 has 50 channels of 2 samples",
        ),
        (changed(3, np.zeros((2, 2, 2))), "clip3 has shape (2, 2, 2); give [T]"),
        (changed(3, np.zeros(9, np.uint8)), "clip3 has type uint8; give floating"),
        (changed(3, np.zeros(9, complex)), "clip3 has type complex128"),
        (noises()[0][:8], "8 of 8 arrays are no audio: clip0 has shape ()"),
    ],
)
def test_what_is_no_audio_is_refused(audio, sentence):
    assert sentence in refusal(audio, NAMES, 1000, fold=FOLDS)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"label": NAMES[:5]}, "there are 8 clips, but label has shape (5,)"),
        ({"label": [0.0, 1.0] * 4}, "label has type float64; give names, or numbers"),
        ({"label": [[0], [0, 1]] * 4}, "label is no array"),
        ({"label": [["a", "b"]] * 8}, "and values like 'a', 'b'; give"),
        ({"label": np.full((8, 2), 0.5)}, "values like 0.5; give 0 and 1"),
        ({"label": np.eye(8, 2), "classes": ["a"]}, "one column for each of 1 classes"),
        ({"label": NAMES, "classes": ["dog"]}, "label names cat; classes has ['dog']"),
        ({"label": [0, 2] * 4, "classes": ["a", "b"]}, "from 0 to 2, but there are 2"),
        (
            {"label": [0, -1] * 4, "classes": ["a", "b"]},
            "from -1 to 0, but there are 2",
        ),
        ({"label": ["a"] * 8}, "one class only ('a')"),
        ({"label": ["dog", "dog "] * 4}, "'dog' and 'dog '"),
        ({"label": np.zeros((8, 0))}, "has no class"),
        ({"fold": [0] + [1] * 7}, "fold has shape (8,) and type int64, the least is 0"),
        ({"fold": [1.5] * 8}, "type float64; give a whole number from 1 for each of 8"),
        ({"fold": [1, 2]}, "fold has shape (2,)"),
        ({"fold": [1] * 8}, "all clips in fold 1"),
        ({"group": ["x"] * 8}, "clips of one recording are in several folds"),
        ({"group": ["x"]}, "there are 8 clips, but group has length 1"),
        ({"filename": ["x"] * 8}, "filename has names twice: x"),
        ({"filename": ["x"]}, "there are 8 clips, but filename has length 1"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"audio": np.tile(noises()[:4], (2, 1))}, "clip0 and clip4; clip1 and clip5"),
        ({"audio": noises(0), "label": [], "fold": []}, "audio has no clips"),
        ({"audio": noises(1), "label": ["a"], "fold": [1]}, "one clip only (clip0)"),
    ],
)
def test_what_does_not_fit_is_refused(given, sentence):
    fitting = {"audio": noises(), "label": NAMES, "sample_rate": 1000, "fold": FOLDS}
    assert sentence in refusal(**fitting | given)


def test_tensorflow_is_never_loaded(repo_root):
    code = (
        "import sys, numpy as np\n"
        "from audiojax import datasets\n"
        "audio = np.random.default_rng(0).uniform(-1, 1, (10, 100))\n"
        "recordings = datasets.from_arrays(audio, [0, 1] * 5, 1000)\n"
        "recordings.audio(3)\n"
        "print([m for m in sys.modules if m.startswith('tensorflow')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=repo_root,
    )
    assert done.stdout.strip() == "[]"


TRAIN = """
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None  # not installed
import numpy as np
from audiojax import datasets
from audiojax.training import sweep
from tests import tiny

tiny.register()
config = tiny.get_config()
config.data.stage, config.data.clip_seconds = "audio", 0.1
config.features.sample_rate, config.features.n_fft = 8000, 800
config.epochs, config.batch_size, config.optimizer.warmup_epochs = 1, 8, 0.0
audio = [np.random.default_rng(i).uniform(-1, 1, 600 + i) for i in range(20)]
recordings = datasets.from_arrays(audio, [0, 1] * 10, 8000)
config.sweep.folds = (1,)
results = sweep.train(config, sys.argv[1], recordings=recordings)
print(results["runs"][0]["final"]["num_clips"])
"""


@pytest.mark.slow
def test_training_does_without_tensorflow(repo_root, tmp_path):
    programs = str(repo_root / ".pytest_cache" / "xla")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=repo_root,
        env=os.environ | {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": programs},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4"]


def test_arrays_at_another_rate_than_the_model_s():
    config = tiny.get_config()
    with pytest.raises(InputError, match=r"at 1000 Hz, but .*sample_rate is 22050"):
        trainer.open_data(config, from_arrays(noises(), NAMES, 1000, fold=FOLDS))


def test_arrays_above_full_scale_are_told_and_left_as_they_are(caplog):
    audio = np.clip(noises(), -0.9, 0.9)
    audio[2, 7], audio[5, 3], audio[6, 0] = 1.5, -2, -1
    recordings = from_arrays(audio, NAMES, 1000, fold=FOLDS)
    assert recordings.info.report == {"loud": ["clip2", "clip5"]}
    assert "2 arrays are above full scale (1) and used as they are" in caplog.text
    np.testing.assert_array_equal(recordings.audio(2), audio[2].astype(np.float32))
    whole = (audio * 16384).astype(np.int16)
    assert from_arrays(whole, NAMES, 1000, fold=FOLDS).info.report == {}


def test_it_is_public():
    assert datasets.from_arrays is from_arrays
