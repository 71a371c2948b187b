import dataclasses
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from audiojax import sounds
from audiojax.clips import MODES, ClipPolicy
from audiojax.datasets import batches
from audiojax.datasets.layouts import synthetic
from audiojax.errors import InputError
from tests.datasets.numbered import (
    CROP,
    PAD,
    SIZE,
    assert_same,
    evaluate,
    make_recordings,
    train,
    uneven,
)


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
            recordings, range(80), 16, policy=ClipPolicy("pad", recordings.num_samples)
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
    evaluate(recordings, range(5), 5, policy=ClipPolicy("pad", 300))
    assert "1 of 5 clips are longer than 0.300 s" in caplog.text


def first_samples(batches_):
    """Clip numbers and window starts of the rows that count."""
    return [
        (int(index), int(audio[0]) - 1000 * int(index))
        for batch in batches_
        for index, audio, mask in zip(
            batch["index"], batch["audio"], batch["mask"], strict=True
        )
        if mask
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_evaluation_sees_every_window_once_in_order(batch_size):
    found = evaluate(uneven(), [7, 2, 1, 3, 4], batch_size, policy=CROP)
    assert first_samples(found) == [
        *[(7, 0), (7, 100), (7, 200)],
        *[(2, 0), (2, 175), (2, 350)],
        (1, 0),
        *[(3, 0), (3, 1)],
        *[(4, 0), (4, 75), (4, 150)],
    ]
    mask = np.concatenate([batch["mask"] for batch in found])
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < 12)
    assert found[-1]["index"][-1] == 4


def test_training_takes_a_new_window_of_each_clip_each_epoch():
    recordings, seen = uneven(in_memory=True), {}
    for epoch in range(150):
        found = train(recordings, range(10), 4, policy=CROP, epoch=epoch)
        pairs = dict(first_samples(found))
        assert sorted(pairs) == list(range(10))
        for clip, start in pairs.items():
            seen.setdefault(clip, []).append(start)
    for clip, starts in seen.items():
        spare = max(recordings.lengths[clip] - SIZE, 0)
        assert min(starts) >= 0
        assert max(starts) <= spare
        # Of 150 even draws from many places, over half of the places up to 150.
        assert len(set(starts)) >= min(spare + 1, 150) / 2
    again = train(recordings, range(10), 4, policy=CROP, epoch=149)
    assert_same(again, found)
    assert first_samples(again) != first_samples(
        train(recordings, range(10), 4, policy=CROP, epoch=149, seed=1)
    )


def test_lengths_are_given_to_stretch_by():
    recordings = uneven()
    stretch = ClipPolicy("stretch", SIZE)
    for batch in train(recordings, range(10), 4, policy=stretch):
        assert batch["length"].dtype == np.int32
        expected = np.minimum(recordings.lengths[batch["index"]], SIZE)
        np.testing.assert_array_equal(batch["length"], expected)
        for row, size in zip(batch["audio"], batch["length"], strict=True):
            assert np.abs(row[size:]).max(initial=0) == 0


def test_several_labels_are_given_as_zeros_and_ones():
    recordings, _ = make_recordings(4)
    labels = [(0, 2), (1,), (), (0, 1, 2)]
    clips = [
        dataclasses.replace(clip, labels=given)
        for clip, given in zip(recordings.info.clips, labels, strict=True)
    ]
    info = dataclasses.replace(recordings.info, clips=tuple(clips), multi_label=True)
    (batch,) = evaluate(dataclasses.replace(recordings, info=info), [3, 0, 1, 2], 4)
    assert batch["label"].dtype == np.float32
    np.testing.assert_array_equal(
        batch["label"], [[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]
    )


def test_weights_are_drawn_by_in_proportion():
    indices, weights = np.arange(100, 105), np.array([0, 1, 2, 3, 4])
    found = np.concatenate(
        [batches.order(indices, seed=1, epoch=e, weights=weights) for e in range(2000)]
    )
    share = np.bincount(found - 100, minlength=5) / len(found)
    # Of 10 000 draws; the standard deviation of a share is at most 0.005.
    np.testing.assert_allclose(share, weights / 10, atol=0.02)
    assert share[0] == 0


def test_weighted_epochs_are_as_long_and_can_be_started_later():
    recordings, weights = uneven(), np.array([1, 1, 9, 1, 1, 1, 9, 1, 1, 1])
    given = {"policy": CROP, "weights": weights, "epoch": 3}
    whole = train(recordings, range(10), 4, **given)
    assert sum(batch["mask"].sum() for batch in whole) == 10
    assert_same(train(recordings, range(10), 4, start=1, **given), whole[1:])
    rows = np.concatenate([batch["index"] for batch in whole])[:10]
    drawn = batches.order(range(10), seed=0, epoch=3, weights=weights)
    np.testing.assert_array_equal(rows, drawn)


@pytest.mark.parametrize(
    "weights", [[1.0, 2.0], [0.0] * 10, [1.0] * 9 + [-1.0], [1.0] * 9 + [np.nan], []]
)
def test_weights_that_can_t_be_drawn_by_are_refused(weights):
    with pytest.raises(InputError, match="the weights of 10 clips are"):
        train(uneven(), range(10), 4, weights=np.array(weights))


def test_each_process_reads_its_rows_only():
    recordings, asked = make_recordings()
    for get in (train, evaluate):
        whole = get(recordings, range(10), 4)
        parts = []
        for rows in (slice(0, 1), slice(1, 4)):
            asked.clear()
            parts.append(get(recordings, range(10), 4, rows=rows))
            assert set(asked) == {i for batch in parts[-1] for i in batch["index"]}
        joined = [
            {name: np.concatenate([a[name], b[name]]) for name in a}
            for a, b in zip(*parts, strict=True)
        ]
        assert_same(joined, whole)


@pytest.mark.parametrize("policy", [PAD, CROP, ClipPolicy("stretch", SIZE)])
def test_threads_give_what_tf_data_gives(policy):
    by_threads = uneven(in_memory=True)
    image = np.random.default_rng(0).normal(size=(20, 4, 5, 3)).astype(np.float32)
    for settings in ({}, {"image": image}):
        given = {"policy": policy, **settings}
        for get in (train, evaluate):
            assert_same(
                get(by_threads, range(10), 4, **given),
                get(uneven(), range(10), 4, **given),
            )
    assert train(by_threads, range(10), 4, start=3) == []
    assert train(uneven(), range(10), 4, start=3) == []


@pytest.mark.parametrize("in_memory", [False, True])
def test_what_is_wrong_with_a_clip_is_told_as_it_is(in_memory):
    def read(index):
        if index == 7:
            raise InputError("7.wav is gone; put it back")
        return np.zeros(SIZE, np.float32)

    recordings, _ = make_recordings()
    recordings = dataclasses.replace(recordings, read=read, in_memory=in_memory)
    with pytest.raises(InputError, match=r"^7\.wav is gone; put it back$"):
        evaluate(recordings, range(10), 4)


def test_threads_do_not_fetch_far_ahead():
    recordings, asked = make_recordings(100)
    recordings = dataclasses.replace(recordings, in_memory=True)
    stream = batches.eval_batches(recordings, range(100), batch_size=1, policy=PAD)
    next(stream)
    assert len(asked) <= batches.PARALLEL + batches.PREFETCH


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_first_batch_is_fetched_before_it_is_asked_for(in_memory):
    recordings, _ = make_recordings()
    fetching, read = threading.Event(), recordings.read

    def tell_and_read(index):
        fetching.set()
        return read(index)

    recordings = dataclasses.replace(
        recordings, read=tell_and_read, in_memory=in_memory
    )
    stream = batches.eval_batches(recordings, range(10), batch_size=4, policy=PAD)
    assert fetching.wait(timeout=60)
    assert [len(batch["index"]) for batch in stream] == [4, 4, 4]


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
from audiojax.datasets import batches
from audiojax.datasets.layouts import synthetic
from audiojax import clips
recordings = synthetic.create(num_folds=1)
policy = clips.ClipPolicy("pad", 44100)
stream = batches.train_batches(
    recordings, range(80), batch_size=8, policy=policy, seed=0, epoch=0
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


def test_nothing_needs_tensorflow_where_it_is_not_installed(repo_root):
    code = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
sys.modules["tensorflow"] = None
import numpy as np
from audiojax.datasets import batches
from audiojax.datasets.layouts import synthetic
from audiojax import clips
recordings = synthetic.create(num_folds=1)
given = {"batch_size": 8, "policy": clips.ClipPolicy("pad", 44100)}
rows = [b["index"] for b in batches.eval_batches(recordings, range(80), **given)]
assert (np.concatenate(rows) == np.arange(80)).all()
stream = batches.train_batches(recordings, range(80), seed=0, epoch=0, **given)
print(next(stream)["audio"].shape)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = "TensorFlow is not installed; threads fetch the batches\n(8, 44100)\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


RESIDENT = """
import sys
import numpy as np
from audiojax import datasets
from audiojax.datasets import batches
from audiojax.clips import ClipPolicy

def growth(recordings):
    # Most MB that are added after the first fifth of an epoch.
    policy, sizes = ClipPolicy("pad", recordings.num_samples), []
    for batch in batches.train_batches(
        recordings, range(len(recordings)), batch_size=50, policy=policy,
        seed=0, epoch=0,
    ):
        lines = open("/proc/self/status")
        line = next(x for x in lines if x.startswith("VmRSS"))
        sizes.append(int(line.split()[1]) / 1024)
    fifth = len(sizes) // 5
    return max(sizes[fifth:]) - max(sizes[:fifth])
"""


def growths(repo_root, code, *arguments):
    """The numbers that the code prints, which can call `growth`."""
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT + code, *map(str, arguments)],
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


def test_memory_does_not_grow_with_the_number_of_clips(repo_root):
    """10 000 clips, 320 MB in all, by each of the two ways."""
    code = """
import dataclasses
n, size = 10_000, 8000
clips = tuple(datasets.Clip(str(i), (0,), 1, str(i)) for i in range(n))
made = datasets.Recordings(
    info=datasets.Info("made", ("a",), 8000, clips),
    digests=("",) * n,
    lengths=np.full(n, size),
    read=lambda i: np.full(size, i, np.float32),
)
print(growth(made), growth(dataclasses.replace(made, in_memory=True)))
"""
    found = growths(repo_root, code)
    assert len(found) == 2
    assert max(found) < 40


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(repo_root, tmp_path):
    """10 000 files in class folders, prepared on the disk."""
    random = np.random.default_rng(0)
    for i in range(10_000):
        path = tmp_path / "sounds" / str(i % 10) / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, random.uniform(-0.5, 0.5, 8000), 8000)
    code = """
settings = datasets.Settings(
    source_dir=sys.argv[1], data_dir=sys.argv[2], sample_rate=8000
)
recordings = datasets.load("audio_folder", settings)
assert len(recordings) == 10_000
print(growth(recordings))
"""
    (found,) = growths(repo_root, code, tmp_path / "sounds", tmp_path / "prepared")
    assert found < 40


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(5))
def test_any_length_rate_and_number_of_channels(mode, seed, tmp_path):
    """Files from one sample to 10 minutes, 4 to 192 kHz, 1 to 8 channels."""
    random, rates = np.random.default_rng(seed), []
    frames = [1, 2, 5, 50, *np.exp(random.uniform(0, np.log(40000), 8)).astype(int)]
    for i, size in enumerate(frames):
        rates.append(int(random.integers(4000, 192001)))
        shape = (size, int(random.integers(1, 9)))
        sound = random.uniform(-1, 1, shape)
        soundfile.write(tmp_path / f"{i}.wav", sound, rates[-1])
    if seed == 0:
        rates.append(4000)
        sound = random.uniform(-1, 1, 600 * 4000)
        soundfile.write(tmp_path / f"{len(frames)}.wav", sound, 4000)
    n, rate = len(rates), 4000
    samples = [sounds.read(tmp_path / f"{i}.wav", rate) / 32768 for i in range(n)]
    lengths = np.array([len(clip) for clip in samples])
    seconds = np.array([*frames, *[600 * 4000] * (seed == 0)]) / rates
    # As long as the file, but for less than a sample, and none empty.
    assert np.abs(lengths - np.maximum(seconds * rate, 1)).max() < 1
    recordings = dataclasses.replace(
        make_recordings(n, lengths=lengths, name=f"any {seed}")[0],
        read=samples.__getitem__,
        in_memory=True,
    )
    given = {"policy": ClipPolicy(mode, 2000, 5), "batch_size": 4}
    evaluated = list(evaluate(recordings, range(n), **given))
    trained = list(train(recordings, range(n), **given))
    for batch in evaluated + trained:
        assert batch["audio"].shape == (4, 2000)
        assert np.isfinite(batch["audio"]).all()
        assert np.abs(batch["audio"]).max() <= 1
    counted = [
        np.concatenate([batch["index"][batch["mask"] > 0] for batch in epoch])
        for epoch in (evaluated, trained)
    ]
    np.testing.assert_array_equal(np.unique(counted[0]), np.arange(n))
    np.testing.assert_array_equal(np.sort(counted[1]), np.arange(n))
    if mode != "crop":
        np.testing.assert_array_equal(counted[0], np.arange(n))


@pytest.mark.parametrize("weights", [None, np.ones(7)])
def test_clean_copies_give_every_clip_once_to_be_changed_and_once_not(weights):
    (recordings, _), indices = make_recordings(), np.arange(3, 10)
    given = {"clean_copy": True, "weights": weights}
    found = train(recordings, indices, 4, **given)
    rows = {name: np.concatenate([b[name] for b in found]) for name in found[0]}
    real = rows["mask"] > 0
    assert real.sum() == 14
    changed, index = rows["changed"][real], rows["index"][real]
    assert changed.dtype == bool
    assert len(np.unique(changed[:7])) == 2  # all in one order
    if weights is None:
        assert sorted(index[changed]) == sorted(index[~changed]) == list(indices)
    assert_same(train(recordings, indices, 4, start=2, **given), found[2:])
