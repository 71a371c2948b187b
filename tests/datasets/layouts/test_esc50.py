import csv

import numpy as np
import pytest
import soundfile
import soxr

from audiojax.datasets import checks
from audiojax.errors import InputError
from tests import sound_tree


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    sound_tree.make_tree(folder)
    return folder


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def refusal(tree, store, name="esc50") -> str:
    with pytest.raises(InputError) as error:
        sound_tree.load(name, tree, store)
    return str(error.value)


def test_esc50_labels_count_the_targets_found(tree, store, caplog):
    with caplog.at_level("INFO"):
        recordings = sound_tree.load("esc50", tree, store)
    info = recordings.info
    assert info.classes == ("dog", "rooster_toy", "crackling_fire", "chainsaw")
    assert (info.num_classes, info.folds, info.sample_rate) == (4, (1, 2, 3), 16000)
    assert len(recordings) == 12
    assert [clip.label for clip in info.clips] == [0, 2, 3, 1] * 3
    assert "12 clips of 4 classes, not all 50" in caplog.text


def test_esc10_takes_the_rows_marked_so(tree, store):
    recordings = sound_tree.load("esc10", tree, store)
    assert recordings.info.classes == ("dog", "crackling_fire", "chainsaw")
    rows = [row for row in sound_tree.make_rows() if row["esc10"] == "True"]
    assert sound_tree.astuples(recordings) == [
        (row["filename"], (n % 3,), int(row["fold"]), row["src_file"])
        for n, row in enumerate(rows)
    ]


def test_audio_is_that_of_the_files(tree, store):
    recordings = sound_tree.load("esc50", tree, store)
    for index, clip in enumerate(recordings.info.clips):
        sound, rate = soundfile.read(tree / "audio" / clip.filename, dtype="float32")
        if sound.ndim == 2:
            sound = sound.mean(axis=1)
        if rate != 16000:
            sound = soxr.resample(sound, rate, 16000)
        read = recordings.audio(index)
        assert read.dtype == np.float32
        assert len(read) == recordings.lengths[index] == len(sound)
        np.testing.assert_allclose(read, sound.clip(-1, 1), atol=1.01 / 32768)
    assert recordings.num_samples == max(recordings.lengths)
    for index in (-1, 12):
        with pytest.raises(IndexError):
            recordings.audio(index)


def test_the_model_chooses_the_rate(tree, store):
    slow = sound_tree.load("esc10", tree, store, sample_rate=8000)
    fast = sound_tree.load("esc10", tree, store)
    np.testing.assert_allclose(2 * slow.lengths, fast.lengths, atol=2)
    assert slow.fingerprint != fast.fingerprint


def test_bom_and_windows_line_ends_are_read(tree, store):
    path = tree / "meta" / "esc50.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(sound_tree.load("esc50", tree, store)) == 12


def test_missing_folders_are_named(tree, store, tmp_path):
    assert f"{tmp_path / 'nowhere'} is not a folder" in refusal(
        tmp_path / "nowhere", store
    )
    (tree / "meta" / "esc50.csv").unlink()
    assert f"{tree} has no meta/esc50.csv" in refusal(tree, store)


def test_missing_columns_are_named(tree, store):
    rows = [
        {k: v for k, v in row.items() if k not in ("fold", "take")}
        for row in sound_tree.make_rows()
    ]
    sound_tree.write_csv(tree, rows)
    assert "lacks the columns fold, take" in refusal(tree, store)
    (tree / "meta" / "esc50.csv").write_text("")
    assert "lacks the columns filename, fold" in refusal(tree, store)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("fold", "6", "line 3: fold is '6', not one of 1 to 5"),
        ("fold", "x", "line 3: fold is 'x'"),
        ("fold", "", "line 3: fold is missing"),
        ("target", "-1", "line 3: target is '-1'"),
        ("target", "1.5", "line 3: target is '1.5'"),
        ("esc10", "yes", "line 3: esc10 is 'yes', not True or False"),
        ("filename", "../x.wav", "line 3: filename '../x.wav' leaves the folder"),
        ("filename", "/etc/x.wav", "line 3: filename '/etc/x.wav' leaves the folder"),
        ("filename", "none.wav", "none.wav is not in"),
        ("category", "cat", "target 12 stands for cat and crackling_fire"),
        ("target", "0", "target 0 stands for crackling_fire and dog"),
    ],
)
def test_faulty_rows_are_named(tree, store, column, value, message):
    rows = sound_tree.make_rows()
    rows[1][column] = value
    sound_tree.write_csv(tree, rows)
    assert message in refusal(tree, store)


def test_all_faults_of_the_table_come_in_one_error(tree, store):
    rows = sound_tree.make_rows()
    rows[0]["fold"] = "zero"
    rows[4]["filename"] = rows[8]["filename"]
    sound_tree.write_csv(tree, rows)
    (tree / "audio" / rows[6]["filename"]).unlink()
    message = refusal(tree, store)
    assert "has 3 faults" in message
    assert "line 2: fold is 'zero'" in message
    assert f"{rows[8]['filename']} comes 2 times" in message
    assert f"{rows[6]['filename']} is not in" in message


def test_long_lists_of_faults_are_cut(tree, store):
    rows = sound_tree.make_rows(folds=(1, 2, 3, 4, 5))
    sound_tree.write_csv(tree, rows)
    for path in (tree / "audio").iterdir():
        path.unlink()
    message = refusal(tree, store)
    assert message.count(" is not in ") == 10
    assert "has 20 faults" in message
    assert message.endswith("and 10 more")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00binary\n", b'filename,fold\n"a', b"\x00" * 10]
)
def test_what_is_no_table_is_refused(tree, store, content):
    (tree / "meta" / "esc50.csv").write_bytes(content)
    message = refusal(tree, store)
    assert "esc50.csv" in message


def test_no_rows_for_the_data_set(tree, store):
    rows = [row | {"esc10": "False"} for row in sound_tree.make_rows()]
    sound_tree.write_csv(tree, rows)
    assert "has no rows for esc10" in refusal(tree, store, "esc10")


def test_the_release_s_own_shared_recordings_are_known(tree, store, caplog):
    rows = sound_tree.make_rows()
    rows[0]["src_file"] = rows[4]["src_file"] = "209698"
    sound_tree.write_csv(tree, rows)
    info = sound_tree.load("esc50", tree, store).info
    assert info.shared_sources == ("209698",)
    checks.check_disjoint(info, range(4), range(4, 12))
    assert "share 1 recordings between training and test: 1-1000-A" in caplog.text


def test_esc10_itself(esc10_dir, store):
    recordings = sound_tree.load("esc10", esc10_dir, store, sample_rate=44100)
    with (esc10_dir / "meta" / "esc50.csv").open() as file:
        rows = list(csv.DictReader(file))
    targets = sorted({int(row["target"]) for row in rows})
    assert sound_tree.astuples(recordings) == [
        (
            row["filename"],
            (targets.index(int(row["target"])),),
            int(row["fold"]),
            row["src_file"],
        )
        for row in rows
    ]
    folds = np.array([clip.fold for clip in recordings.info.clips])
    labels = np.array([clip.label for clip in recordings.info.clips])
    np.testing.assert_array_equal(np.bincount(folds), [0, 80, 80, 80, 80, 80])
    np.testing.assert_array_equal(np.bincount(labels), [40] * 10)
    assert recordings.info.classes[4] == "crackling_fire"
    assert recordings.info.shared_sources == ()
    for fold in recordings.info.folds:
        checks.check_disjoint(
            recordings.info,
            np.flatnonzero(folds != fold),
            np.flatnonzero(folds == fold),
        )
    for index in (0, 199, 399):
        name = recordings.info.clips[index].filename
        sound, _ = soundfile.read(esc10_dir / "audio" / name)
        np.testing.assert_allclose(
            recordings.audio(index), sound.clip(-1, 1), atol=1 / 32768
        )
