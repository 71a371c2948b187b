"""Images that are computed once and kept; each kind of damage is found and mended."""

import logging
import shutil

import numpy as np
import pytest

from audiojax import files
from audiojax.clips import ClipPolicy
from audiojax.datasets import batches, from_arrays
from audiojax.datasets.store import images
from audiojax.errors import InputError
from tests.datasets.numbered import CROP, PAD, make_recordings, train, uneven

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


def compute(batch):
    """Stands in for the log-mel: [B, T] -> [B, 2, 3, 1]."""
    return batch["audio"][:, :6].reshape(-1, 2, 3, 1) * 2


def cache(recordings, folder, **settings):
    given = {
        "key": "a",
        "shape": (2, 3, 1),
        "compute": compute,
        "policy": PAD,
        "batch_size": 4,
        "cache_dir": str(folder),
        **settings,
    }
    return images.image_cache(recordings, **given)


def test_images_are_computed_once_and_mapped(tmp_path, caplog):
    recordings, asked = make_recordings()
    with caplog.at_level(logging.INFO):
        images = cache(recordings, tmp_path)
    assert "computing 10 images" in caplog.text
    assert "0.0 MiB" in caplog.text
    assert isinstance(images, np.memmap)
    assert images.dtype == np.float32
    assert not images.flags.writeable
    expected = np.broadcast_to(np.arange(10).reshape(-1, 1, 1, 1) / 32, images.shape)
    np.testing.assert_array_equal(images, expected)
    asked.clear()
    np.testing.assert_array_equal(cache(recordings, tmp_path, compute=None), expected)
    assert not asked
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_images_are_keyed_by_content_settings_and_length(tmp_path):
    recordings, _ = make_recordings()
    cache(recordings, tmp_path)
    cache(recordings, tmp_path, key="b")
    cache(recordings, tmp_path, policy=ClipPolicy("pad", 50))
    cache(make_recordings(name="other")[0], tmp_path)
    assert len(list(tmp_path.glob("log_mel-*.npy"))) == 4


def test_images_of_windows_are_those_of_the_audio(tmp_path):
    recordings = uneven()
    images = cache(recordings, tmp_path, policy=CROP)
    assert len(images) == 1 + 1 + 3 + 2 + 3 + 1 + 2 + 3 + 1 + 3
    given = {"policy": CROP, "batch_size": 4}
    indices = [7, 2, 1, 3]
    audio = batches.eval_batches(recordings, indices, **given)
    found = batches.eval_batches(recordings, indices, image=images, **given)
    for left, right in zip(audio, found, strict=True):
        np.testing.assert_array_equal(compute(left), right["image"])
        np.testing.assert_array_equal(left["index"], right["index"])


def test_training_draws_each_of_the_cached_windows(tmp_path):
    recordings = uneven(in_memory=True)
    images = cache(recordings, tmp_path, policy=CROP)
    seen = {i: set() for i in range(10)}
    for epoch in range(30):
        for batch in train(
            recordings, range(10), 4, policy=CROP, epoch=epoch, image=images
        ):
            for i, image in zip(batch["index"], batch["image"], strict=True):
                seen[int(i)].add(float(image[0, 0, 0]) / 2 - 1000 * int(i))
    assert seen[0] == seen[1] == {0}
    assert seen[2] == {0, 175, 350}
    assert seen[3] == {0, 1}


def test_all_batches_of_images_have_one_size(tmp_path):
    sizes = []

    def noted(batch):
        sizes.append(batch["audio"].shape)
        return compute(batch)

    cache(make_recordings()[0], tmp_path, compute=noted)
    assert sizes == [(4, PAD.num_samples)] * 3


def test_images_that_failed_leave_nothing(tmp_path):
    def failing(batch):
        if batch["audio"][0, 0] > 0.1:
            raise KeyboardInterrupt
        return compute(batch)

    recordings, _ = make_recordings()
    with pytest.raises(KeyboardInterrupt):
        cache(recordings, tmp_path, compute=failing)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert cache(recordings, tmp_path).shape == (10, 2, 3, 1)
    with pytest.raises(ValueError, match="images"):
        cache(recordings, tmp_path, key="c", shape=(3, 3, 1))


def test_what_a_killed_process_left_is_written_over(tmp_path):
    recordings, _ = make_recordings()
    whole = cache(recordings, tmp_path).copy()
    (path,) = tmp_path.glob("*.npy")
    path.with_name(f".{path.name}.part").write_bytes(path.read_bytes()[:200])
    path.unlink()
    np.testing.assert_array_equal(cache(recordings, tmp_path), whole)
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".json", ".npy", ".lock"]


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 0, 100)
    )
    with pytest.raises(InputError, match=r"has 0\.0 MiB free; make room"):
        cache(make_recordings()[0], tmp_path)
