import hashlib
from pathlib import Path

import numpy as np
import pytest

from audiojax import files
from audiojax.datasets import store
from audiojax.errors import InputError


def test_arrays_come_back_and_equal_arrays_give_equal_bytes(tmp_path):
    arrays = {"logits": np.arange(6.0).reshape(2, 3), "filename": np.array(["ä", "b"])}
    files.write_arrays(tmp_path / "a.npz", arrays)
    files.write_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = files.read_arrays(tmp_path / "a.npz")
    assert sorted(read) == ["filename", "logits"]
    np.testing.assert_array_equal(read["logits"], arrays["logits"])
    np.testing.assert_array_equal(read["filename"], arrays["filename"])


def test_json_comes_back_and_nan_is_refused(tmp_path):
    files.write_json(tmp_path / "a.json", {"accuracy": 0.1})
    assert files.read_json(tmp_path / "a.json") == {"accuracy": 0.1}
    with pytest.raises(ValueError, match="nan"):
        files.write_json(tmp_path / "a.json", {"accuracy": float("nan")})
    assert files.read_json(tmp_path / "a.json") == {"accuracy": 0.1}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    files.write_bytes(path, b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_whole_or_not_there(tmp_path):
    def failing():
        with files.whole(tmp_path / "made") as part:
            part.mkdir()
            (part / "half").write_bytes(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".made.part").write_bytes(b"left by a killed writer")
    with files.whole(tmp_path / "made", alone=True) as part:
        part.mkdir()
        (part / "all").write_bytes(b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "all"]


def test_caches_lie_where_the_desktop_says(tmp_path, monkeypatch):
    monkeypatch.delenv(store.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert files.cache_dir() == tmp_path / "caches" / "audiojax"
    assert store.data_dir(None) == files.cache_dir()
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "own"))
    assert store.data_dir(None) == tmp_path / "own"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert files.cache_dir() == Path.home() / ".cache" / "audiojax"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 MiB"),
        (3 * 2**19, "1.5 MiB"),
        (2**30 - 2**20, "1023.0 MiB"),
        (2**30, "1.00 GiB"),
        (5 * 2**29, "2.50 GiB"),
    ],
)
def test_sizes_below_a_gib_are_in_mib(size, text):
    assert files.size_text(size) == text


def test_the_sum_of_a_file_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # over one block
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "{}",
        lambda text: "[1]",
        lambda text: text.replace("17", "18"),
    ],
    ids=["cut", "empty", "no fields", "no object", "edited"],
)
def test_sealed_json_tells_of_damage(tmp_path, damage):
    path = tmp_path / "a.json"
    files.write_sealed(path, {"steps": 17})
    assert files.read_sealed(path, "delete it") == {"steps": 17}
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"a\.json is damaged .*; delete it"):
        files.read_sealed(path, "delete it")


def test_what_can_not_be_written_is_told_early(tmp_path):
    path = tmp_path / "deep" / "out.npz"
    files.check_writable(path)
    assert list((tmp_path / "deep").iterdir()) == []
    path.write_text("what stands there")
    files.check_writable(path)
    assert path.read_text() == "what stands there"
    with pytest.raises(InputError, match="deep is a folder; give the name of a file"):
        files.check_writable(tmp_path / "deep")
    with pytest.raises(InputError, match=r"x\.npz can't be written \(.+\); give"):
        files.check_writable(path / "x.npz")
