"""What happens to prepared audio: each kind of damage is found and mended."""

import hashlib
import shutil
import sys
import types

import numpy as np
import pytest

from audiojax import datasets, files
from audiojax.datasets.store import prepare, sums
from audiojax.errors import InputError
from tests import sound_tree


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small ESC-50, as it is prepared: its files, the store, and what it gives."""
    folder = tmp_path_factory.mktemp("whole")
    sound_tree.make_tree(folder / "tree")
    recordings = sound_tree.load("esc50", folder / "tree", folder / "store")
    samples = [recordings.audio(index) for index in range(12)]
    return folder / "tree", folder / "store", recordings.fingerprint, samples


@pytest.fixture
def store(whole, tmp_path):
    """A store of its own for each test."""
    return shutil.copytree(whole[1], tmp_path / "store")


def check(whole, store):
    """Opens the store and compares what it gives, to the bit."""
    tree, _, fingerprint, samples = whole
    recordings = sound_tree.load("esc50", tree, store)
    assert recordings.fingerprint == fingerprint
    for index, expected in enumerate(samples):
        np.testing.assert_array_equal(recordings.audio(index), expected, strict=True)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def empty(path):
    path.write_bytes(b"")


def nothing(path):
    path.write_text("{}")


def delete(path):
    path.unlink()


def add(path):
    path.with_name("more.array_record-00001-of-00002").write_bytes(b"x")


def add_hidden(path):
    path.with_name(".DS_Store").write_bytes(b"x")


def delete_folder(path):
    shutil.rmtree(path.parent)


AUDIO, NOTES, INFO = "audio.array_record", "notes.array_record", "dataset_info.json"
FEATURES = "features.json"
CASES = [
    (AUDIO, flip, "of-00001 was changed between bytes 0 and"),
    (AUDIO, lambda path: flip(path, len(path.read_bytes()) // 2), "was changed"),
    (AUDIO, cut, r"bytes, not"),
    (AUDIO, empty, "has 0 bytes, not"),
    (AUDIO, delete, "of-00001 is missing"),
    (AUDIO, add, "more.array_record-00001-of-00002 is not one of them"),
    (AUDIO, delete_folder, "is missing"),
    (NOTES, flip, "was changed between"),
    (NOTES, delete, "is missing"),
    (INFO, flip, f"{INFO} was changed between bytes 0 and"),
    (INFO, nothing, f"{INFO} has 2 bytes, not"),
    (INFO, empty, f"{INFO} has 0 bytes, not"),
    (INFO, delete, f"{INFO} is missing"),
    (FEATURES, flip, f"{FEATURES} was changed"),
    (FEATURES, delete, f"{FEATURES} is missing"),
    (prepare.SUMS, flip, f"{prepare.SUMS}, which holds their sums, is damaged"),
    (prepare.SUMS, cut, "their sums, is damaged"),
    (prepare.SUMS, empty, "their sums, is damaged"),
    (prepare.SUMS, nothing, "their sums, is damaged"),
]


@pytest.mark.parametrize(("name", "damage", "told"), CASES)
def test_damaged_audio_is_prepared_anew(
    whole, store, decoded, caplog, name, damage, told
):
    (path,) = (path for path in store.rglob("*") if name in path.name)
    damage(path)
    check(whole, store)
    assert len(decoded) == 12
    (warning,) = warnings(caplog)
    (folder,) = store.glob("esc50-16000Hz/*/")
    assert warning.startswith(f"the prepared audio in {folder} is damaged (")
    assert told in warning
    assert warning.endswith("); its files are prepared anew")
    check(whole, store)  # and now it is whole
    assert len(decoded) == 12
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("harmless", [add_hidden, lambda _: None])
def test_whole_audio_is_opened_without_a_word(whole, store, decoded, caplog, harmless):
    (path,) = store.rglob(INFO)
    harmless(path)
    check(whole, store)
    assert decoded == warnings(caplog) == []


def test_audio_without_sums_is_prepared_anew(whole, store, decoded, caplog):
    """An older version prepared it, or preparing did not come to its end."""
    (path,) = store.rglob(prepare.SUMS)
    path.unlink()
    check(whole, store)
    assert len(decoded) == 12
    assert warnings(caplog) == []
    assert path.is_file()


def test_preparing_stopped_before_its_sums_is_not_taken_for_whole(
    whole, tmp_path, monkeypatch, decoded
):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sums, "write_below", stop)
        with pytest.raises(KeyboardInterrupt):
            sound_tree.load("esc50", whole[0], tmp_path)
    assert list(tmp_path.rglob(INFO))
    check(whole, tmp_path)
    assert len(decoded) == 24


def test_damaged_audio_that_can_t_be_deleted_is_not_used(whole, store, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    (path,) = store.rglob("*audio.array_record*")
    flip(path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        for _ in range(2):
            with pytest.raises(PermissionError):
                sound_tree.load("esc50", whole[0], store)
    check(whole, store)


def test_only_the_damaged_part_is_prepared_anew(whole, tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(prepare, "PART_FILES", 4)
    check(whole, tmp_path)
    first, *_ = sorted(tmp_path.rglob("*audio.array_record*"))
    flip(first)
    check(whole, tmp_path)
    assert len(decoded) == 16


def test_without_the_sound_files_it_is_the_ordinary_error(whole, store, tmp_path):
    tree = shutil.copytree(whole[0], tmp_path / "tree")
    sound_tree.load("esc50", tree, store)
    for path in (tree / "audio").iterdir():
        path.unlink()
    for _ in range(2):
        with pytest.raises(InputError, match=r"is not in .*audio"):
            sound_tree.load("esc50", tree, store)
        for path in store.rglob("*.array_record*"):
            empty(path)


def test_what_is_fetched_has_sums(whole, tmp_path, decoded, caplog):
    given = sound_tree.settings(whole[0], tmp_path / "here")
    table = datasets.TABLES["esc50"](given)
    part = prepare._whole(table, tmp_path / "bucket" / "esc50-16000Hz")
    prepare.AudioFiles(table, *part).prepare(file_format="tfrecord")
    prepare.fetch(table, given, str(tmp_path / "bucket"))
    decoded.clear()
    check(whole, tmp_path / "here")
    assert decoded == []
    (path,) = (tmp_path / "here").rglob("*audio.array_record*")
    flip(path)
    check(whole, tmp_path / "here")
    assert len(decoded) == 12
    assert len(warnings(caplog)) == 1


def test_what_beam_prepares_has_sums(whole, tmp_path, monkeypatch, decoded, caplog):
    """The pipeline itself is left out: it needs Apache Beam."""
    options = types.SimpleNamespace(PipelineOptions=lambda options: None)
    monkeypatch.setitem(sys.modules, "apache_beam", types.ModuleType("apache_beam"))
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", options)
    monkeypatch.setattr(prepare, "AudioFilesByBeam", prepare.AudioFiles)
    given = sound_tree.settings(whole[0], tmp_path)
    table = datasets.TABLES["esc50"](given)
    for decodings in (12, 24):
        prepare.with_beam(table, given, [])
        prepare.with_beam(table, given, [])
        check(whole, tmp_path)
        assert len(decoded) == decodings
        (path,) = tmp_path.rglob("*audio.array_record*")
        flip(path)
    assert len(warnings(caplog)) == 1
    check(whole, tmp_path)
    assert len(decoded) == 36
    assert len(warnings(caplog)) == 2


def test_sums_are_those_of_the_parts(tmp_path, monkeypatch):
    content = np.random.default_rng(0).bytes(2500)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "empty").write_bytes(b"")
    monkeypatch.setattr(sums, "PART_BYTES", 1000)
    monkeypatch.setattr(sums, "BLOCK", 300)
    path = tmp_path / "sums.json"
    sums.write_below(path)
    parts = content[:1000], content[1000:2000], content[2000:]
    assert files.read_sealed(path, "")["files"] == {
        "a": [[len(part), hashlib.sha256(part).hexdigest()] for part in parts],
        "b/empty": [],
    }
    assert [sums.of(part) for part in parts] == [
        (len(part), hashlib.sha256(part).hexdigest()) for part in parts
    ]
    assert sums.damage(path, sums.below(path)) == ""
    for at, where in ((0, "0 and 1000"), (1999, "1000 and 2000"), (2499, "2000 and")):
        (tmp_path / "a").write_bytes(content)
        flip(tmp_path / "a", at)
        found = sums.damage(path, sums.below(path))
        assert found.startswith(f"a was changed between bytes {where}")
