import csv

import numpy as np
import pytest
import soundfile
import soxr

from audiojax import datasets
from audiojax.datasets.layouts import urbansound8k
from audiojax.errors import InputError
from tests import sound_tree

RATE = 22050
# What the release holds: rate, channels, format of the samples, seconds.
KINDS = (
    (44100, 2, "PCM_16", 0.4),
    (48000, 2, "PCM_24", 0.3),
    (11025, 1, "PCM_U8", 0.5),
    (22050, 1, "PCM_16", 0.05),
    (96000, 2, "FLOAT", 0.2),
    (192000, 1, "PCM_24", 0.1),
    (44100, 1, "PCM_32", 0.3),
    (8000, 1, "PCM_16", 0.5),
)
CLASSES = ("air_conditioner", "car_horn", "siren")
CLASS_IDS = (0, 1, 8)


def make_rows():
    """Two slices of a recording for each of three classes in each of ten folds."""
    rows = []
    for fold in range(1, 11):
        for class_id, name in zip(CLASS_IDS, CLASSES, strict=True):
            recording = 1000 * fold + class_id
            for part in range(2):
                rows.append(
                    {
                        "slice_file_name": f"{recording}-{class_id}-0-{part}.wav",
                        "fsID": str(recording),
                        "start": f"{part + 0.25}",
                        "end": f"{part + 0.3}",
                        "salience": str(1 + part),
                        "fold": str(fold),
                        "classID": str(class_id),
                        "class": name,
                    }
                )
    return rows


def write_csv(folder, rows):
    path = folder / "metadata" / "UrbanSound8K.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tree as it should be, and its rows."""
    folder, rows = tmp_path_factory.mktemp("UrbanSound8K"), make_rows()
    for index, row in enumerate(rows):
        rate, channels, subtype, seconds = KINDS[index % len(KINDS)]
        rng = np.random.default_rng(index)
        path = folder / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = rng.uniform(-0.7, 0.7, (round(seconds * rate), channels))
        soundfile.write(path, sound, rate, subtype=subtype)
        (path.parent / ".DS_Store").write_bytes(b"\0")
    write_csv(folder, rows)
    return folder


@pytest.fixture
def tree(whole, tmp_path):
    """A copy to be spoilt: links to the sounds, a CSV of its own."""
    folder = tmp_path / "tree"
    for path in (whole / "audio").glob("*/*.wav"):
        link = folder / path.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    write_csv(folder, make_rows())
    return folder


def read(folder):
    return urbansound8k.read(sound_tree.settings(folder, folder))


def refusal(folder) -> str:
    with pytest.raises(InputError) as error:
        read(folder)
    return str(error.value)


def test_the_layout_s_mixed_formats_are_read(whole, tmp_path):
    settings = sound_tree.settings(whole, tmp_path, sample_rate=RATE)
    recordings = datasets.load("urbansound8k", settings)
    info, rows = recordings.info, make_rows()
    assert info.classes == CLASSES
    assert info.folds == tuple(range(1, 11))
    assert info.official_folds
    assert sound_tree.astuples(recordings) == [
        (
            row["slice_file_name"],
            (CLASSES.index(row["class"]),),
            int(row["fold"]),
            row["fsID"],
        )
        for row in rows
    ]
    for index, row in enumerate(rows):
        path = whole / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        expected = sound.mean(axis=1)
        if rate != RATE:
            expected = soxr.resample(expected, rate, RATE)
        seconds = KINDS[index % len(KINDS)][3]
        assert len(recordings.audio(index)) == pytest.approx(seconds * RATE, abs=1)
        np.testing.assert_allclose(
            recordings.audio(index), expected.clip(-1, 1), atol=1e-4
        )
    assert info.report == {}


def test_classes_and_counts_that_are_not_the_release_s_are_told(tree, caplog):
    with caplog.at_level("INFO"):
        read(tree)
    assert "60 clips of 3 classes, not the 8732 of 10" in caplog.text


def test_files_that_the_csv_does_not_name_are_told(tree, caplog):
    (tree / "audio" / "fold3" / "new.wav").write_bytes(b"")
    (tree / "audio" / "fold3" / "._new.wav").write_bytes(b"")
    assert read(tree).report == {"not_listed": ["fold3/new.wav"]}
    assert (
        "1 files that the CSV does not name are left out: fold3/new.wav" in caplog.text
    )


def test_missing_folders_are_named(tree, tmp_path):
    with pytest.raises(InputError, match=r"needs config\.data\.source_dir"):
        urbansound8k.read(datasets.Settings(sample_rate=RATE))
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    (tree / "metadata" / "UrbanSound8K.csv").unlink()
    assert "has no metadata/UrbanSound8K.csv" in refusal(tree)


def test_missing_columns_are_named(tree):
    rows = [
        {k: v for k, v in row.items() if k not in ("fold", "end")}
        for row in make_rows()
    ]
    write_csv(tree, rows)
    assert "lacks the columns end, fold" in refusal(tree)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("fold", "11", "line 3: fold is '11', not one of 1 to 10"),
        ("fold", "0", "line 3: fold is '0'"),
        ("fold", "", "line 3: fold is missing"),
        ("fold", "2", "fold2/1000-0-0-1.wav is not in"),
        ("salience", "3", "line 3: salience is '3', not 1 or 2"),
        ("start", "x", "line 3: start is 'x', not a number of seconds"),
        ("start", "nan", "line 3: start is 'nan'"),
        ("end", "-1", "line 3: end is '-1'"),
        ("end", "0.5", "line 3: start is 1.25 s, after end, 0.5 s"),
        ("classID", "one", "line 3: classID is 'one', not a whole number"),
        ("classID", "8", "line 3: 1000-0-0-1.wav has classID 0 in it, not 8"),
        ("fsID", "1001", "line 3: 1000-0-0-1.wav has fsID 1000 in it, not 1001"),
        ("fsID", "²", "line 3: fsID is '²'"),
        ("class", "siren", "classID 0 stands for air_conditioner and siren"),
        ("class", "siren", "class siren stands for 0 and 8"),
        ("slice_file_name", "a.wav", "line 3: slice_file_name is 'a.wav', not fsID-"),
        ("slice_file_name", "../1000-0-0-1.wav", "line 3: slice_file_name is '../1000"),
        ("slice_file_name", "1000-0-0-0.wav", "1000-0-0-0.wav comes 2 times"),
        ("slice_file_name", "1000-0-0-7.wav", "fold1/1000-0-0-7.wav is not in"),
    ],
)
def test_faulty_rows_are_named(tree, column, value, message):
    rows = make_rows()
    rows[1][column] = value
    write_csv(tree, rows)
    assert message in refusal(tree)


def test_a_recording_in_two_folds_is_an_error(whole, tree, tmp_path):
    rows = make_rows()
    for row in rows:
        if row["fsID"] == "2000":
            old = tree / "audio" / "fold2" / row["slice_file_name"]
            row["fsID"] = "1000"
            row["slice_file_name"] = row["slice_file_name"].replace(
                "2000-0-0", "1000-0-1"
            )
            old.rename(old.with_name(row["slice_file_name"]))
    write_csv(tree, rows)
    with pytest.raises(InputError, match=r"1000-0-0-0\.wav and 1000-0-1-0\.wav"):
        datasets.load("urbansound8k", sound_tree.settings(tree, tmp_path / "store"))


def test_a_random_split_of_its_folds_is_refused(whole, tmp_path):
    settings = sound_tree.settings(whole, tmp_path, split="random")
    with pytest.raises(InputError, match="comes with folds"):
        datasets.load("urbansound8k", settings)


def test_a_broken_slice_is_named_or_skipped(tree, tmp_path):
    path = tree / "audio" / "fold4" / make_rows()[18]["slice_file_name"]
    path.unlink()
    path.write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"1 of 60 sound files .*4000-0-0-0"):
        datasets.load("urbansound8k", sound_tree.settings(tree, tmp_path / "store"))
    settings = sound_tree.settings(tree, tmp_path / "store", on_bad_file="skip")
    recordings = datasets.load("urbansound8k", settings)
    assert len(recordings) == 59
    assert list(recordings.info.report["skipped"]) == ["4000-0-0-0.wav"]
