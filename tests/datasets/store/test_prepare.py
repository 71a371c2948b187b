import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from audiojax import datasets, sounds
from audiojax.datasets import Clip, Info, Settings
from audiojax.datasets.store import builder, prepare
from audiojax.errors import InputError
from tests import sound_tree

RATE = 16000

# What processes of their own do; both print as JSON.
LOAD = """
import json, sys
from pathlib import Path
from audiojax import sounds
from audiojax.datasets.store import prepare
from tests import sound_tree
prepare.PART_FILES = 4
decode, seen = sounds.decode, []
def counted(path, sample_rate):
    seen.append(str(path))
    if len(seen) == KILLED_AT:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(path, sample_rate)
sounds.decode = counted
recordings = sound_tree.load("esc50", Path(sys.argv[1]), Path(sys.argv[2]))
print(json.dumps([recordings.fingerprint.sha256, seen, "tensorflow" in sys.modules]))
"""


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    sound_tree.make_tree(folder)
    return folder


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def make_table(sounds, **options):
    """A table of files: every other one of class 1, every fifth in fold 1."""
    clips = [
        Clip(path.name, (i % 2,), i % 5 + 1, source=path.name, path=path)
        for i, path in enumerate(sounds)
    ]
    return Info("made", ("a", "b"), RATE, tuple(clips), **options)


def write(folder, sounds):
    """Writes {name: samples [T]}; gives the paths."""
    folder.mkdir(exist_ok=True)
    for name, sound in sounds.items():
        with (folder / name).open("wb") as file:
            soundfile.write(file, sound, RATE, subtype="FLOAT", format="WAV")
    return [folder / name for name in sounds]


def noise(seed, seconds=0.1, level=0.5):
    return np.random.default_rng(seed).uniform(-level, level, round(seconds * RATE))


def settings(store, **options):
    return Settings(data_dir=str(store), sample_rate=RATE, **options)


def start(tree, store, repo_root, killed_at=0):
    code = LOAD.replace("KILLED_AT", str(killed_at))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tree), str(store)],
        cwd=repo_root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_second_start_decodes_nothing(tree, store, decoded):
    first = sound_tree.load("esc10", tree, store)
    assert len(decoded) == 9
    second = sound_tree.load("esc10", tree, store)
    assert len(decoded) == 9
    assert second.fingerprint == first.fingerprint
    assert second.info == first.info
    np.testing.assert_array_equal(second.lengths, first.lengths)
    np.testing.assert_array_equal(second.audio(5), first.audio(5))


def test_a_changed_file_is_decoded_again_with_its_part(
    tree, store, decoded, monkeypatch
):
    monkeypatch.setattr(prepare, "PART_FILES", 4)
    first = sound_tree.load("esc50", tree, store)
    names = [clip.filename for clip in first.info.clips]
    decoded.clear()
    path = tree / "audio" / names[2]
    os.utime(path, ns=(0, 0))
    touched = sound_tree.load("esc50", tree, store)
    assert touched.fingerprint == first.fingerprint  # its content is the same
    assert set(decoded) == set(names[:4])
    sound_tree.write_sound(path, seed=99, rate=RATE, channels=1)
    changed = sound_tree.load("esc50", tree, store)
    assert changed.fingerprint != first.fingerprint
    assert len(changed.audio(2)) == RATE // 5 + 990
    for index in (0, 1, *range(3, 12)):
        np.testing.assert_array_equal(changed.audio(index), first.audio(index))


def test_labels_and_folds_change_without_decoding(tree, store, decoded):
    first = sound_tree.load("esc50", tree, store)
    decoded.clear()
    rows = sound_tree.make_rows()
    rows[0]["src_file"] = "another"
    sound_tree.write_csv(tree, rows[::-1])
    second = sound_tree.load("esc50", tree, store)
    assert decoded == []
    assert second.info.clips[-1].source == "another"
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(second.audio(11), first.audio(0))
    assert second.lengths.tolist() == first.lengths.tolist()[::-1]


def test_a_part_holds_so_many_files_or_bytes(tmp_path, monkeypatch):
    files = [(f"{i}", tmp_path / f"{i}") for i in range(7)]
    for (_, path), size in zip(files, (10, 10, 50, 500, 10, 10, 10), strict=True):
        path.write_bytes(bytes(size))
    monkeypatch.setattr(prepare, "PART_FILES", 3)
    monkeypatch.setattr(prepare, "PART_BYTES", 60)
    names = ["".join(name for name, _ in part) for part in prepare._parts(files)]
    assert names == ["01", "2", "3", "456"]


def test_killed_it_goes_on_and_two_share_the_work(tree, store, repo_root):
    killed = start(tree, store, repo_root, killed_at=7)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert list(store.glob("*/*/*/*/incomplete*"))
    both = [start(tree, store, repo_root) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [err for _, err in outputs] == ["", ""]
    prints, seen, tensorflow = zip(
        *(json.loads(out) for out, _ in outputs), strict=True
    )
    assert len(set(prints)) == 1
    # The first part was whole before the kill; no file is decoded by both.
    assert len(seen[0]) + len(seen[1]) == len({*seen[0], *seen[1]}) == 8
    assert tensorflow == (False, False)
    assert not list(store.glob("*/*/*/*/incomplete*"))
    expected = sound_tree.load("esc50", tree, store.with_name("other"))
    assert expected.fingerprint.sha256 == prints[0]


BAD = {
    "torn.wav": "is not a readable sound file",
    "empty.wav": "is empty",
    "nan.wav": "not finite",
    "loud.wav": "full scale is 1",
    "cut.ogg": "cut off",
}


@pytest.fixture
def mixed(tmp_path):
    """Ten good files and the five of `BAD`."""
    folder = tmp_path / "mixed"
    paths = write(folder, {f"{i}.wav": noise(i) for i in range(10)})
    paths += write(
        folder,
        {
            "empty.wav": np.zeros(0),
            "nan.wav": np.array([0.1, np.nan, 0.1]),
            "loud.wav": np.array([0.0, 20000.0, -3.0]),
        },
    )
    (folder / "torn.wav").write_bytes(paths[0].read_bytes()[:20])
    soundfile.write(folder / "cut.ogg", noise(0, 3.0), RATE)
    content = (folder / "cut.ogg").read_bytes()
    (folder / "cut.ogg").write_bytes(content[: len(content) // 2])
    return [*paths, folder / "torn.wav", folder / "cut.ogg"]


def test_all_bad_files_come_in_one_error(mixed, store, decoded):
    for _ in range(2):
        with pytest.raises(InputError) as error:
            prepare.load(make_table(mixed), settings(store))
    message = str(error.value)
    assert "5 of 15 sound files can't be used" in message
    assert "on_bad_file=skip" in message
    for name, reason in BAD.items():
        assert name in message
        assert reason in message
    listing = (store / "made-16000Hz" / "bad_files.txt").read_text().splitlines()
    assert len(listing) == 5
    assert len(decoded) == 15  # the second start knew


def test_bad_files_are_skipped_where_that_is_asked_for(mixed, store, caplog):
    table = make_table(mixed)
    recordings = prepare.load(table, settings(store, on_bad_file="skip"))
    assert [clip.filename for clip in recordings.info.clips] == [
        f"{i}.wav" for i in range(10)
    ]
    for index in range(10):
        np.testing.assert_allclose(recordings.audio(index), noise(index), atol=1e-4)
    skipped = recordings.info.report["skipped"]
    assert skipped.keys() == BAD.keys()
    assert all(reason in skipped[name] for name, reason in BAD.items())
    assert "5 clips can't be used and are left out" in caplog.text
    json.dumps(recordings.info.report)


def test_files_known_to_be_broken_are_left_out_with_a_warning(mixed, store, caplog):
    table = make_table(mixed, known_broken=(*BAD, "0.wav"))
    recordings = prepare.load(table, settings(store))
    # What can be read is used, whatever is known of it.
    assert len(recordings) == 10
    assert recordings.info.report["skipped"].keys() == BAD.keys()
    assert "5 clips can't be used" in caplog.text


def test_nothing_left_is_an_error(mixed, store):
    with pytest.raises(InputError, match="none of made's 5 sound files can be used"):
        prepare.load(make_table(mixed[10:]), settings(store, on_bad_file="skip"))


def test_folds_are_checked_again_without_what_is_skipped(mixed, store):
    rows = [
        dataclasses.replace(row, labels=(int(row.filename in BAD),))
        for row in make_table(mixed).clips
    ]
    table = dataclasses.replace(make_table(mixed), clips=tuple(rows))
    with pytest.raises(InputError, match="made has no clips of 'b'"):
        prepare.load(table, settings(store, on_bad_file="skip"))


def test_silent_clipped_loud_and_short_are_reported_and_used(tmp_path, store, caplog):
    square = np.sign(np.sin(np.arange(1600) / 20))
    paths = write(
        tmp_path / "sounds",
        {
            "good.wav": noise(0),
            "nothing.wav": np.zeros(1600),
            "dither.wav": noise(1, level=1 / 32768),
            "quiet.wav": noise(2, level=8 / 32768),
            "square.wav": square,
            "half.wav": square / 2,
            "peaks.wav": np.tile([0.0, 1.0, 0.0, -1.0], 400),
            "blip.wav": noise(3, 0.009),
            "longer.wav": noise(4, 0.011),
            "loud.wav": np.append(noise(5), 1.5),
        },
    )
    info = prepare.load(make_table(paths), settings(store)).info
    assert len(info.clips) == 10
    assert "1 clips of floating point numbers are above full scale" in caplog.text
    assert info.report == {
        "silent": ["nothing.wav", "dither.wav"],
        "clipped": ["square.wav"],
        "loud": ["loud.wav"],
        "short": ["blip.wav"],
    }


def test_the_layout_s_own_report_is_kept(tmp_path, store):
    paths = write(tmp_path / "sounds", {f"{i}.wav": noise(i) for i in range(10)})
    table = make_table(paths, report={"not_listed": ["x.wav"]})
    report = prepare.load(table, settings(store)).info.report
    assert report == {"not_listed": ["x.wav"]}


def test_copies_in_two_folds_are_refused(tmp_path, store):
    paths = write(tmp_path / "sounds", {f"{i}.wav": noise(i % 3) for i in range(4)})
    with pytest.raises(InputError, match=r"0\.wav and 3\.wav"):
        prepare.load(make_table(paths), settings(store))
    allowed = settings(store, allow_leaks=True)
    assert len(prepare.load(make_table(paths), allowed)) == 4


def test_folds_are_made_where_that_is_asked_for(tmp_path, store):
    paths = write(tmp_path / "sounds", {f"{i}.wav": noise(i) for i in range(12)})
    asked = settings(store, split="stratified", num_folds=3)
    info = prepare.load(make_table(paths), asked).info
    pairs = sorted((clip.fold, clip.label) for clip in info.clips)
    assert pairs == sorted((f, c) for f in (1, 2, 3) for c in (0, 1) for _ in range(2))
    assert not info.official_folds


def test_names_that_are_hard(tmp_path, store):
    names = ["ünï 音.wav", "a" * 240 + ".wav", "%s {x}.wav", "line\nend.wav"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"latin\xe9.wav"))
    paths = write(tmp_path / "sounds", {n: noise(i) for i, n in enumerate(names)})
    recordings = prepare.load(make_table(paths), settings(store))
    assert [clip.filename for clip in recordings.info.clips] == names
    for index in range(len(names)):
        np.testing.assert_allclose(recordings.audio(index), noise(index), atol=1e-4)


@pytest.mark.parametrize("full", [OSError(errno.ENOSPC, "x"), None])
def test_a_full_disk_is_said_and_what_is_whole_stays(
    tree, store, monkeypatch, decoded, full
):
    """`None`: the words of the C++ library that writes array_record."""
    full = full or RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}")
    monkeypatch.setattr(prepare, "PART_FILES", 4)
    write, calls = builder.AudioFiles.prepare, []

    def prepare_two(self):
        calls.append(self)
        if len(calls) == 3:
            raise ValueError("a library's own words") from full
        write(self)

    monkeypatch.setattr(builder.AudioFiles, "prepare", prepare_two)
    with pytest.raises(InputError, match=r"the disk is full.*data_dir"):
        sound_tree.load("esc50", tree, store)
    assert len(decoded) == 8
    assert len(sound_tree.load("esc50", tree, store)) == 12
    assert len(decoded) == 12


def test_other_errors_of_preparing_are_not_hidden(tree, store, monkeypatch):
    def broken(self):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(builder.AudioFiles, "prepare", broken)
    with pytest.raises(RuntimeError, match="ours"):
        sound_tree.load("esc50", tree, store)


def test_random_formats_rates_and_channels(tmp_path, store):
    """No clip is lost or counted twice, and each is what soundfile and soxr give."""
    rng = np.random.default_rng(0)
    kinds = [
        ("wav", "PCM_U8"),
        ("wav", "PCM_24"),
        ("wav", "DOUBLE"),
        ("aiff", "PCM_16"),
    ]
    paths, expected = [], []
    for index in range(24):
        suffix, subtype = kinds[index % len(kinds)]
        rate = int(rng.integers(4000, 192001))
        size = int(np.exp(rng.uniform(0, np.log(2 * rate))))
        sound = rng.uniform(-0.9, 0.9, (size, int(rng.integers(1, 9))))
        paths.append(tmp_path / f"{index}.{suffix}")
        soundfile.write(paths[-1], sound, rate, subtype=subtype)
        mono = soundfile.read(paths[-1], dtype="float32", always_2d=True)[0].mean(1)
        expected.append(soxr.resample(mono, rate, RATE) if rate != RATE else mono)
    recordings = prepare.load(make_table(paths), settings(store))
    assert len(recordings) == 24
    for index, sound in enumerate(expected):
        stored = recordings.audio(index)
        assert len(stored) == recordings.lengths[index] == max(len(sound), 1)
        np.testing.assert_allclose(stored[: len(sound)], sound.clip(-1, 1), atol=1e-4)


def test_the_store_is_a_data_set_of_its_own(tree, store):
    """TensorFlow Datasets opens it without this project."""
    import tensorflow_datasets as tfds

    recordings = sound_tree.load("esc10", tree, store)
    (folder,) = store.glob("esc10-16000Hz/*/audio_files/esc10/3.0.0")
    with builder.quiet():
        sources: Any = tfds.builder_from_directory(folder).as_data_source()
    examples = {x["filename"].decode(): x["audio"] for x in sources["audio"]}
    assert len(examples) == 9
    for index, clip in enumerate(recordings.info.clips):
        samples = examples[clip.filename]
        assert samples.dtype == np.int16
        np.testing.assert_array_equal(samples / 32768, recordings.audio(index))


def test_beam_prepares_the_same(tree, store, monkeypatch):
    pytest.importorskip("apache_beam")
    expected = sound_tree.load("esc50", tree, store)
    given = sound_tree.settings(tree, store.with_name("beam"))
    table = datasets.TABLES["esc50"](given)
    options = ["--runner=DirectRunner"]
    assert prepare.with_beam(table, given, options).is_dir()
    monkeypatch.setattr(sounds, "decode", None)
    recordings = prepare.load(table, given)
    assert recordings.fingerprint == expected.fingerprint
    for index in range(12):
        np.testing.assert_array_equal(recordings.audio(index), expected.audio(index))


def test_what_lies_in_a_bucket_is_fetched(tree, store, decoded):
    """A bucket holds tfrecord, which nothing can open in any order."""
    expected = sound_tree.load("esc50", tree, store)
    given = sound_tree.settings(tree, store.with_name("here"))
    table, bucket = datasets.TABLES["esc50"](given), store.with_name("bucket")
    with pytest.raises(InputError, match="holds no esc50 at 16000 Hz"):
        prepare.fetch(table, given, str(bucket))
    part = prepare._whole(table, bucket / "esc50-16000Hz")
    builder.AudioFiles(table, *part).prepare(file_format="tfrecord")
    decoded.clear()
    prepare.fetch(table, given, str(bucket))
    recordings = prepare.load(table, given)
    assert decoded == []
    assert recordings.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(recordings.audio(7), expected.audio(7))


def test_without_beam_it_says_what_to_install(tree, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    given = sound_tree.settings(tree, store)
    with pytest.raises(InputError, match=r"pip install 'audiojax\[beam\]'"):
        prepare.with_beam(datasets.TABLES["esc50"](given), given, [])
