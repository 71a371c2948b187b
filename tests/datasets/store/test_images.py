"""What happens to images that are kept: each kind of damage is found and mended."""

import logging

import numpy as np
import pytest

from audiojax import files
from audiojax.clips import ClipPolicy
from audiojax.datasets import from_arrays
from audiojax.datasets.store import images

SIZE = 50


def open_cache(folder, key="a", compute=None):
    audio = np.random.default_rng(0).uniform(-1, 1, (10, SIZE))
    return images.image_cache(
        from_arrays(audio, [0, 1] * 5, 1000, fold=[1] * 4 + [2] * 6),
        key=key,
        shape=(2, 5, 5),
        compute=compute or (lambda batch: batch["audio"].reshape(-1, 2, 5, 5) * 2),
        policy=ClipPolicy("pad", SIZE),
        batch_size=4,
        cache_dir=str(folder),
    )


def of(folder):
    (path,) = folder.glob("*.npy")
    return path, path.with_suffix(".json")


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit(path, change):
    """Changes the sums by hand, with a seal that fits."""
    value = files.read_sealed(path, "")
    change(value)
    files.write_sealed(path, value)


def other(npy, sums):
    """Images of another shape, with sums of their own."""
    open_cache(npy.parent / "other", key="b")
    images, its = of(npy.parent / "other")
    npy.write_bytes(images.read_bytes())
    sums.write_bytes(its.read_bytes())


# What is done to the images and their sums, and words of the warning.
DAMAGES = {
    "byte flipped": (lambda npy, _: flip(npy, 1000), "was changed between bytes 928"),
    "first": (lambda npy, _: flip(npy, 128), "was changed between bytes 128 and 928"),
    "last": (lambda npy, _: flip(npy, -1), "was changed between bytes"),
    "header": (lambda npy, _: flip(npy, 60), "was changed between bytes 0 and 128"),
    "magic": (lambda npy, _: flip(npy, 0), "was changed between bytes 0 and 128"),
    "cut": (
        lambda npy, _: npy.write_bytes(npy.read_bytes()[:-8]),
        "has 2120 bytes, not 2128",
    ),
    "longer": (
        lambda npy, _: npy.write_bytes(npy.read_bytes() + b"\0"),
        "has 2129 bytes, not 2128",
    ),
    "empty": (lambda npy, _: npy.write_bytes(b""), "has 0 bytes, not 2128"),
    "another array": (
        lambda npy, _: np.save(npy, np.zeros((10, 2, 5, 5), np.float32)),
        "was changed between bytes",
    ),
    "wrong shape": (
        lambda npy, _: np.save(npy, np.zeros((10, 5, 10, 1), np.float32)),
        "was changed between bytes",
    ),
    "no sums": (lambda _, sums: sums.unlink(), "which holds their sums, is missing"),
    "sums empty": (lambda _, sums: sums.write_bytes(b""), "their sums, is damaged"),
    "sums cut": (
        lambda _, sums: sums.write_bytes(sums.read_bytes()[:-20]),
        "their sums, is damaged",
    ),
    "sums of none": (lambda _, sums: sums.write_text("{}"), "their sums, is damaged"),
    "sums flipped": (lambda _, sums: flip(sums, 70), "their sums, is damaged"),
    "sums no text": (
        lambda _, sums: sums.write_bytes(b"\xff\xfe"),
        "their sums, is damaged",
    ),
    "sums strange": (
        lambda _, sums: files.write_sealed(sums, {"files": [3]}),
        "their sums, is damaged",
    ),
    "sums newer": (
        lambda _, sums: files.write_sealed(sums, {"format": 10**6, "files": {}}),
        "their sums, is damaged",
    ),
    "sums of fewer": (
        lambda npy, sums: edit(sums, lambda value: value["files"][npy.name].pop()),
        "has 2128 bytes, not",
    ),
    "other images": (other, "is missing"),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_images_are_computed_anew(tmp_path, caplog, damage, told):
    whole = open_cache(tmp_path).copy()
    paths = of(tmp_path)
    before = [path.read_bytes() for path in paths]
    assert [len(content) for content in before[:1]] == [128 + 4 * whole.size]
    damage(*paths)
    caplog.clear()
    np.testing.assert_array_equal(open_cache(tmp_path), whole, strict=True)
    assert [path.read_bytes() for path in paths] == before
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"the images kept in {paths[0]} are damaged (")
    assert told in warning
    assert warning.endswith("); they are computed anew")
    assert "checkpoint" not in warning
    caplog.clear()
    computed = open_cache(tmp_path, compute=pytest.fail)
    np.testing.assert_array_equal(computed, whole, strict=True)
    assert not caplog.records


def test_deleted_images_are_computed_anew_without_a_word(tmp_path, caplog):
    whole = open_cache(tmp_path).copy()
    of(tmp_path)[0].unlink()
    np.testing.assert_array_equal(open_cache(tmp_path), whole)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("step", ["compute", "sums", "fsync"])
def test_an_interrupted_writer_leaves_nothing_that_passes(tmp_path, monkeypatch, step):
    """At the second batch, when the sums are written, and just before the end."""

    def stop(*_):
        raise KeyboardInterrupt

    calls = []

    def compute(batch):
        calls.append(batch)
        return stop() if len(calls) == 2 else batch["audio"].reshape(-1, 2, 5, 5)

    with monkeypatch.context() as patch:
        if step == "sums":
            patch.setattr(files, "write_sealed", stop)
        elif step == "fsync":
            patch.setattr(files.os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            open_cache(tmp_path, compute=compute if step == "compute" else None)
    assert not list(tmp_path.glob("*.npy"))
    whole = open_cache(tmp_path / "undisturbed")
    np.testing.assert_array_equal(open_cache(tmp_path), whole)
