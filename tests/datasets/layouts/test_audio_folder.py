import os
import shutil

import numpy as np
import pytest
import soundfile

from audiojax import datasets
from audiojax.datasets.layouts import audio_folder
from audiojax.errors import InputError
from tests import mixed_tree


@pytest.fixture
def folder(tmp_path):
    """Six clips of each of two classes, in four formats at four rates."""
    mixed_tree.make(tmp_path / "sounds")
    return tmp_path / "sounds"


def read(folder, **more):
    given = {"source_dir": str(folder), "sample_rate": 16000, "num_folds": 3, **more}
    return audio_folder.read(datasets.Settings(**given))


def refusal(folder, **more):
    with pytest.raises(InputError) as error:
        read(folder, **more)
    return str(error.value)


def folds_of(table):
    return {row.filename: row.fold for row in table.clips}


def test_every_sound_is_found_with_its_class(folder):
    table = read(folder)
    assert table.classes == ("cat", "dog")
    expected = [
        ("cat/0.wav", 0),
        ("cat/1.flac", 0),
        ("cat/2.ogg", 0),
        ("cat/3.mp3", 0),
        ("cat/4.wav", 0),
        ("cat/5.flac", 0),
        ("dog/0.flac", 1),
        ("dog/1.ogg", 1),
        ("dog/2.mp3", 1),
        ("dog/3.wav", 1),
        ("dog/4.flac", 1),
        ("dog/5.ogg", 1),
    ]
    assert [(row.filename, *row.labels) for row in table.clips] == expected
    assert all(row.path == folder / row.filename for row in table.clips)
    assert all(row.source == row.filename for row in table.clips)
    assert not table.official_folds
    assert not table.multi_label


def test_folds_are_made_even_and_by_seed(folder):
    table = read(folder)
    counts = np.zeros((3, 2), int)
    for row in table.clips:
        counts[row.fold - 1, row.labels[0]] += 1
    np.testing.assert_array_equal(counts, [[2, 2]] * 3)
    assert folds_of(read(folder)) == folds_of(table)
    assert folds_of(read(folder, seed=1)) != folds_of(table)
    assert {row.fold for row in read(folder, num_folds=2).clips} == {1, 2}


def test_folds_do_not_depend_on_the_order_of_the_file_system(folder, tmp_path):
    other = tmp_path / "copy"
    for path in sorted(folder.rglob("*.*"), reverse=True):
        target = other / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert folds_of(read(other)) == folds_of(read(folder))


def test_too_few_clips_for_the_folds(folder):
    (folder / "dog" / "0.flac").unlink()
    message = refusal(folder, num_folds=6)
    assert "at least 6 recordings for 6 folds; lower config.data.num_folds" in message
    assert "'dog' has 5" in message
    assert "cat" not in message


@pytest.mark.parametrize(
    ("names", "folds"),
    [
        (("train", "validation", "test"), {"test": 1, "validation": 2, "train": 3}),
        (("Train", "VALID", "Test"), {"Test": 1, "VALID": 2, "Train": 3}),
        (("train", "val", "test"), {"test": 1, "val": 2, "train": 3}),
        (("train", "test"), {"test": 1, "train": 2}),
        (("train", "valid"), {"valid": 1, "train": 2}),
    ],
)
def test_parts_are_folds(tmp_path, names, folds):
    for seed, name in enumerate(names):
        for label in ("cat", "dog"):
            mixed_tree.write(tmp_path / name / label / f"{seed}.wav", seed)
    table = read(tmp_path)
    assert table.classes == ("cat", "dog")
    assert table.official_folds
    assert {row.filename.split("/")[0]: row.fold for row in table.clips} == folds
    assert len(table.clips) == 2 * len(names)


def test_two_names_for_one_part(tmp_path):
    for name in ("train", "val", "valid"):
        mixed_tree.write(tmp_path / name / "cat" / "a.wav")
    assert "the parts are train, val, valid" in refusal(tmp_path)


def test_train_can_be_a_class(tmp_path):
    mixed_tree.make(tmp_path, classes=("train", "bus"), clips=3)
    assert read(tmp_path).classes == ("bus", "train")


def test_folders_in_a_class_are_looked_into(folder):
    mixed_tree.write(folder / "cat" / "kitten" / "indoors" / "a.wav")
    mixed_tree.write(folder / "cat" / "x.wav" / "a.wav", seed=1)
    names = [row.filename for row in read(folder).clips]
    assert "cat/kitten/indoors/a.wav" in names
    assert "cat/x.wav/a.wav" in names
    assert len(names) == 14


def test_what_is_hidden_is_passed_over_and_what_is_no_sound_is_named(folder, caplog):
    for name in (".DS_Store", "cat/._0.wav", ".git/a.wav", "__MACOSX/cat/a.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    for name in ("README.txt", "cat/cover.jpg"):
        (folder / name).write_bytes(b"")
    table = read(folder)
    assert len(table.clips) == 12
    assert table.report == {"not_sounds": ["README.txt", "cat/cover.jpg"]}
    assert "2 files are no sounds by their names" in caplog.text
    assert "README.txt; cat/cover.jpg" in caplog.text


def test_capital_suffixes_are_sounds(folder):
    os.rename(folder / "cat" / "0.wav", folder / "cat" / "0.WAV")
    assert len(read(folder).clips) == 12


def test_every_format_of_libsndfile_is_taken_for_a_sound():
    for name in soundfile.available_formats():
        assert f".{name.lower()}" in audio_folder.SUFFIXES


def test_links_within_the_tree_are_followed_to_files_that_are_hidden(folder):
    os.makedirs(folder / ".store")
    os.rename(folder / "cat" / "0.wav", folder / ".store" / "a1b2")
    (folder / "cat" / "0.wav").symlink_to("../.store/a1b2")
    assert len(read(folder).clips) == 12
    (folder / "cat" / "again.wav").symlink_to("../.store/a1b2")
    assert "cat/0.wav and cat/again.wav are one file" in refusal(folder)


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(read(tmp_path / "link").clips) == 12


def test_no_folder_given():
    with pytest.raises(InputError, match=r"needs config\.data\.source_dir"):
        audio_folder.read(datasets.Settings(sample_rate=16000))


def test_the_sounds_are_those_of_the_files(folder, tmp_path):
    settings = datasets.Settings(
        source_dir=str(folder), data_dir=str(tmp_path / "store"), sample_rate=16000
    )
    recordings = datasets.load("audio_folder", settings)
    assert len(recordings) == 12
    for index, clip in enumerate(recordings.info.clips):
        sound, rate = soundfile.read(folder / clip.filename)
        samples = recordings.audio(index)
        assert abs(len(samples) - len(sound) * 16000 / rate) <= 1
        # Below 8 kHz lies that share of white noise.
        share = min(16000 / rate, 1)
        assert np.var(samples) == pytest.approx(np.var(sound) * share, rel=0.2)
