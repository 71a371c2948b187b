import numpy as np
import pytest

from audiojax import files


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
