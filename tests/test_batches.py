import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest

from audiojax.datasets import Clip, Info, Recordings, batches, synthetic
from audiojax.datasets.windows import Clipping
from audiojax.errors import InputError

SIZE = 100  # samples asked for
PAD = Clipping("pad", SIZE)


def make_recordings(n=10, lengths=None, sources=None, name="sounds", shared=()):
    """Clip i holds the value i / 64 throughout; `asked` notes which were read."""
    lengths = np.full(n, SIZE) if lengths is None else np.array(lengths)
    sources = [str(i) for i in range(n)] if sources is None else sources
    clips = tuple(Clip(f"{i}.wav", (i % 3,), i % 2 + 1, sources[i]) for i in range(n))
    asked = []

    def read(index):
        asked.append(index)
        return np.full(lengths[index], index / 64, np.float32)

    info = Info(name, ("a", "b", "c"), 1000, clips, shared)
    return Recordings(info, f"print of {name}", lengths, read), asked


def train(recordings, indices, batch_size, **settings):
    given = {"clipping": PAD, "seed": 0, "epoch": 0, **settings}
    return list(
        batches.train_batches(recordings, indices, batch_size=batch_size, **given)
    )


def evaluate(recordings, indices, batch_size, **settings):
    given = {"clipping": PAD, **settings}
    return list(
        batches.eval_batches(recordings, indices, batch_size=batch_size, **given)
    )


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_num_batches():
    assert [batches.num_batches(n, 4) for n in (0, 1, 4, 5, 8, 9)] == [0, 1, 1, 2, 2, 3]


def test_order_is_a_permutation_of_seed_and_epoch_alone():
    indices = np.arange(100, 200)
    first = batches.order(indices, seed=1, epoch=2)
    assert sorted(first) == list(indices)
    np.testing.assert_array_equal(first, batches.order(indices, seed=1, epoch=2))
    others = [(1, 3), (2, 2), (2, 1), (0, 2)]
    assert all(
        (batches.order(indices, seed=s, epoch=e) != first).any() for s, e in others
    )
    # NumPy promises this stream for good, so a run can go on under another version.
    small = batches.order(np.arange(8), seed=1, epoch=2)
    np.testing.assert_array_equal(small, [6, 0, 7, 5, 1, 4, 3, 2])


def test_what_a_batch_holds():
    recordings, _ = make_recordings()
    for batch in train(recordings, range(10), 4) + evaluate(recordings, range(10), 4):
        assert {name: (x.shape, x.dtype.name) for name, x in batch.items()} == {
            "audio": ((4, SIZE), "float32"),
            "label": ((4,), "int32"),
            "mask": ((4,), "float32"),
            "index": ((4,), "int32"),
        }
        np.testing.assert_array_equal(
            batch["audio"], np.tile(batch["index"][:, None] / 64, (1, SIZE))
        )
        np.testing.assert_array_equal(batch["label"], batch["index"] % 3)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 16, 25])
def test_training_takes_each_clip_once_and_fills_up_from_the_start(batch_size):
    recordings, _ = make_recordings()
    indices = [9, 2, 4, 5, 7, 1, 8]
    epoch = train(recordings, indices, batch_size, seed=3, epoch=1)
    order = batches.order(indices, seed=3, epoch=1)
    rows = np.concatenate([batch["index"] for batch in epoch])
    mask = np.concatenate([batch["mask"] for batch in epoch])
    assert len(rows) == batches.num_batches(7, batch_size) * batch_size
    np.testing.assert_array_equal(rows, np.resize(order, len(rows)))
    np.testing.assert_array_equal(mask, np.arange(len(rows)) < 7)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_evaluation_keeps_the_order_and_repeats_the_last_clip(batch_size):
    recordings, _ = make_recordings()
    indices = [9, 2, 4, 5, 7, 1, 8]
    got = evaluate(recordings, indices, batch_size)
    rows = np.concatenate([batch["index"] for batch in got])
    mask = np.concatenate([batch["mask"] for batch in got])
    np.testing.assert_array_equal(rows[:7], indices)
    assert set(rows[7:]) <= {8}
    np.testing.assert_array_equal(mask, np.arange(len(rows)) < 7)


@pytest.mark.parametrize("start", range(5))
def test_starting_later_gives_the_tail_and_reads_no_more(start):
    recordings, asked = make_recordings(14)
    whole = train(recordings, range(14), 4, epoch=2)
    asked.clear()
    tail = train(recordings, range(14), 4, epoch=2, start=start)
    assert_same(tail, whole[start:])
    wanted = {i for batch in whole[start:] for i in batch["index"]}
    assert set(asked) == wanted


def test_same_seed_same_bits_with_real_sounds():
    recordings = synthetic.create(seconds=0.25, sample_rate=8000, num_folds=1)
    runs = [
        train(
            recordings, range(80), 16, clipping=Clipping("pad", recordings.num_samples)
        )
        for _ in range(2)
    ]
    assert_same(*runs)
    first = runs[0][0]
    expected = [recordings.audio(i) for i in first["index"]]
    np.testing.assert_array_equal(first["audio"], expected)


def test_short_clips_are_filled_with_zeros_and_long_ones_cut(caplog):
    recordings, _ = make_recordings(5, lengths=[100, 40, 100, 350, 130], name="uneven")
    audio = evaluate(recordings, range(5), 5)[0]["audio"]
    np.testing.assert_array_equal(audio[1, :40], np.float32(1 / 64))
    np.testing.assert_array_equal(audio[1, 40:], 0)
    np.testing.assert_array_equal(audio[3], np.float32(3 / 64))
    assert len(caplog.records) == 1
    assert "2 of 5 clips are longer than 0.100 s" in caplog.text
    assert "the longest by 0.250 s" in caplog.text
    evaluate(recordings, range(5), 5)
    assert len(caplog.records) == 1  # once is enough
    evaluate(recordings, range(5), 5, clipping=Clipping("pad", 300))
    assert "1 of 5 clips are longer than 0.300 s" in caplog.text


def test_images_are_given_instead_of_audio():
    recordings, asked = make_recordings()
    images = np.random.default_rng(0).normal(size=(10, 4, 5, 3)).astype(np.float32)
    for batch in train(recordings, range(10), 4, image=images):
        assert batch.keys() == {"image", "label", "mask", "index"}
        np.testing.assert_array_equal(batch["image"], images[batch["index"]])
    assert not asked


def test_what_can_t_be_batched_is_refused():
    recordings, _ = make_recordings()
    with pytest.raises(InputError, match="batch_size is 0"):
        train(recordings, range(10), 0)
    with pytest.raises(InputError, match="the seed is -1"):
        train(recordings, range(10), 4, seed=-1)
    for get in (train, evaluate):
        with pytest.raises(InputError, match="no clips"):
            get(recordings, [], 4)


def test_an_epoch_left_early_does_not_keep_the_program_from_ending(repo_root):
    code = """
from audiojax.datasets import batches, synthetic, windows
recordings = synthetic.create(num_folds=1)
clipping = windows.Clipping("pad", 44100)
stream = batches.train_batches(
    recordings, range(80), batch_size=8, clipping=clipping, seed=0, epoch=0
)
print(next(stream)["audio"].shape)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(8, 44100)\n", "")


def compute(batch):
    """Stands in for the log-mel: [B, T] -> [B, 2, 3, 1]."""
    return batch["audio"][:, :6].reshape(-1, 2, 3, 1) * 2


def cache(recordings, folder, **settings):
    given = {
        "key": "a",
        "shape": (2, 3, 1),
        "compute": compute,
        "clipping": PAD,
        "batch_size": 4,
        "cache_dir": str(folder),
        **settings,
    }
    return batches.image_cache(recordings, **given)


def test_images_are_computed_once_and_mapped(tmp_path, caplog):
    recordings, asked = make_recordings()
    with caplog.at_level(logging.INFO):
        images = cache(recordings, tmp_path)
    assert "computing 10 images" in caplog.text
    assert "0.00 GiB" in caplog.text
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
    cache(recordings, tmp_path, clipping=Clipping("pad", 50))
    cache(make_recordings(name="other")[0], tmp_path)
    assert len(list(tmp_path.glob("log_mel-*.npy"))) == 4


def test_all_batches_of_images_have_one_size(tmp_path):
    sizes = []

    def noted(batch):
        sizes.append(batch["audio"].shape)
        return compute(batch)

    cache(make_recordings()[0], tmp_path, compute=noted)
    assert sizes == [(4, SIZE)] * 3


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
    path.with_name(f"{path.name}.part").write_bytes(path.read_bytes()[:200])
    path.unlink()
    np.testing.assert_array_equal(cache(recordings, tmp_path), whole)
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".npy", ".lock"]


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 0, 100)
    )
    with pytest.raises(InputError, match=r"has 0\.00 GiB free; make room"):
        cache(make_recordings()[0], tmp_path)


def test_damaged_images_are_told(tmp_path):
    recordings, _ = make_recordings()
    cache(recordings, tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"is damaged .*: delete it"):
        cache(recordings, tmp_path)
