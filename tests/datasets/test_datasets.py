import pytest

from audiojax import datasets
from audiojax.datasets import store
from audiojax.errors import InputError, listed


def load(name, sample_rate=22050, **settings):
    return datasets.load(name, datasets.Settings(sample_rate=sample_rate, **settings))


def test_unknown_data_sets_are_refused():
    with pytest.raises(InputError, match="'esc51'; the known ones: esc50, esc10"):
        load("esc51")


def test_synthetic_is_made_at_the_rate_and_seed_asked_for():
    recordings = load("synthetic", sample_rate=16000, seed=3)
    assert recordings.info.sample_rate == 16000
    assert recordings.num_samples == 32000
    assert recordings.fingerprint != load("synthetic", sample_rate=16000).fingerprint


def test_synthetic_has_no_source_dir():
    with pytest.raises(InputError, match="made by code"):
        load("synthetic", source_dir="sounds")


def test_data_dir_given_or_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOJAX_DATA_DIR", str(tmp_path / "a"))
    assert store.data_dir(None) == tmp_path / "a"
    assert store.data_dir(str(tmp_path / "b" / "c")) == tmp_path / "b" / "c"
    monkeypatch.delenv("AUDIOJAX_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.data_dir(None) == tmp_path / ".cache" / "audiojax"
    assert store.data_dir("~/data") == tmp_path / "data"


def test_data_dir_must_be_a_local_folder(tmp_path):
    with pytest.raises(InputError, match="disk of this machine"):
        store.data_dir("gs://bucket/data")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be made"):
        store.data_dir(str(tmp_path / "file" / "data"))


def test_listed():
    assert listed(["a", "b"]) == "a; b"
    assert listed("abcd", limit=2) == "a; b; and 2 more"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "folds"}, "split is 'folds'; give one of None, 'stratified'"),
        ({"on_bad_file": "ignore"}, "on_bad_file is 'ignore'; give one of 'error'"),
        ({"sample_rate": 0}, "sample_rate is 0; give at least 1"),
        ({"num_folds": 1}, "num_folds is 1; give at least 2"),
        ({"seed": -1}, "seed is -1; give at least 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        datasets.Settings(**{"sample_rate": 22050} | given)


def test_the_label_of_a_clip_is_its_only_one():
    assert datasets.Clip("a.wav", (3,), 1, "a").label == 3
    for labels in ((), (1, 2)):
        with pytest.raises(ValueError, match="unpack"):
            datasets.Clip("a.wav", labels, 1, "a").label  # noqa: B018
