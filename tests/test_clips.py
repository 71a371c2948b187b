import numpy as np
import pytest

from audiojax import clips
from audiojax.clips import MODES, ClipPolicy
from audiojax.errors import InputError

SIZE = 100


def crop(num_windows=10):
    return ClipPolicy("crop", SIZE, num_windows)


def random_lengths(seed):
    """From one sample to a hundred rows, with the lengths around whole rows."""
    rng = np.random.default_rng(seed)
    near = np.arange(1, 5)[:, None] * SIZE + np.arange(-1, 2)
    return np.concatenate([[1, 2], near.ravel(), rng.integers(1, 100 * SIZE, 30)])


def test_count_is_what_covers_the_clip_up_to_the_limit():
    lengths = [1, 99, 100, 101, 200, 201, 999, 1000, 1001, 100000]
    expected = [1, 1, 1, 2, 2, 3, 10, 10, 10, 10]
    np.testing.assert_array_equal(clips.counts(np.array(lengths), crop()), expected)
    for mode in ("pad", "repeat", "stretch"):
        found = clips.counts(np.array(lengths), ClipPolicy(mode, SIZE, 10))
        np.testing.assert_array_equal(found, np.ones(10))


def test_windows_are_even_and_end_with_the_clip():
    lengths = np.full(4, 370)
    found = clips.starts(lengths, crop(), np.arange(4))
    np.testing.assert_array_equal(found, [0, 90, 180, 270])
    found = clips.starts(lengths[:3], crop(3), np.arange(3))
    np.testing.assert_array_equal(found, [0, 135, 270])


def test_a_single_window_stands_in_the_middle():
    lengths = np.array([370, 101, 100, 1])
    np.testing.assert_array_equal(clips.starts(lengths, crop(1), 0), [135, 0, 0, 0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_windows", [1, 2, 3, 1000])
def test_every_window_lies_in_its_clip_and_enough_of_them_cover_it(mode, num_windows):
    lengths = random_lengths(num_windows)
    policy = ClipPolicy(mode, SIZE, num_windows)
    clip, number = clips.every(lengths, policy)
    start = clips.starts(lengths[clip], policy, number)
    assert clip.shape == number.shape == start.shape
    first = clips.first(lengths, policy)
    for n, length in enumerate(lengths):
        rows = np.flatnonzero(clip == n)
        # None lost, none twice, all together and where `first` says.
        np.testing.assert_array_equal(rows, first[n] + np.arange(len(rows)))
        np.testing.assert_array_equal(number[rows], np.arange(len(rows)))
        assert start[rows].min() >= 0
        assert start[rows].max() <= max(length - SIZE, 0)
        assert len(set(start[rows])) == len(rows)
        if mode == "crop" and len(rows) * SIZE >= length:
            heard = np.zeros(length, bool)
            for place in start[rows]:
                heard[place : place + SIZE] = True
            assert heard.all()


def test_random_windows_reach_every_place_alike():
    chance = np.linspace(0, 1, 3 * 51, endpoint=False)
    found = clips.drawn(np.full(len(chance), SIZE + 50), crop(), chance)
    np.testing.assert_array_equal(np.bincount(found), np.full(51, 3))


@pytest.mark.parametrize("mode", MODES)
def test_random_windows_lie_in_the_clip(mode):
    lengths = random_lengths(0)
    chance = np.full(len(lengths), np.nextafter(1, 0))
    found = clips.drawn(lengths, ClipPolicy(mode, SIZE, 10), chance)
    expected = np.maximum(lengths - SIZE, 0) if mode == "crop" else 0 * lengths
    np.testing.assert_array_equal(found, expected)


def test_short_clips_are_filled_up():
    samples = np.arange(1, 41, dtype=np.int16)
    for mode in ("pad", "crop", "stretch"):
        row = clips.fit(samples, 0, ClipPolicy(mode, SIZE))
        np.testing.assert_array_equal(row, [*samples, *[0] * 60])
        assert row.dtype == np.int16
    row = clips.fit(samples, 0, ClipPolicy("repeat", SIZE))
    np.testing.assert_array_equal(row, [*samples, *samples, *samples[:20]])
    assert row.dtype == np.int16


@pytest.mark.parametrize("mode", MODES)
def test_long_clips_are_cut(mode):
    samples = np.arange(250)
    for start in (0, 33, 150):
        row = clips.fit(samples, start, ClipPolicy(mode, SIZE))
        np.testing.assert_array_equal(row, samples[start : start + SIZE])


def test_true_length_is_at_most_a_row():
    found = clips.true_lengths(np.array([1, 100, 101]), ClipPolicy("stretch", SIZE))
    np.testing.assert_array_equal(found, [1, 100, 100])
    assert found.dtype == np.int32


def test_what_is_cut_is_said_with_numbers():
    lengths = np.array([100, 40, 100, 350, 130])
    text = clips.unseen(lengths, ClipPolicy("repeat", SIZE), 1000)
    assert text == (
        "2 of 5 clips are longer than 0.100 s and are cut at the end: half of them by "
        "at most 0.140 s, the longest by 0.250 s"
    )
    assert clips.unseen(lengths, ClipPolicy("pad", 350), 1000) is None


def test_what_windows_leave_out_is_said_with_the_way_out():
    lengths = np.array([100, 40, 1000, 350, 130])
    text = clips.unseen(lengths, crop(2), 1000)
    assert text == (
        "2 of 5 clips are longer than 2 windows of 0.100 s, and evaluation leaves out "
        "what lies between: of half of them at most 0.475 s, of the longest 0.800 s; "
        "config.data.num_windows=10 would leave out nothing"
    )
    assert clips.unseen(lengths, crop(10), 1000) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("loop", SIZE),
            "clip_mode is 'loop'; choose one of pad, repeat, crop, stretch",
        ),
        (("pad", 0), "clip_seconds makes clips of 0 samples"),
        (("crop", SIZE, 0), "num_windows is 0"),
    ],
)
def test_what_can_t_be_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ClipPolicy(*settings)


def windows_of(counts, seed=0):
    """Logits, labels and clip numbers of clips 10, 9, ... with so many windows."""
    clips = np.repeat(np.arange(10, 10 - len(counts), -1), counts)
    logits = np.random.default_rng(seed).normal(size=(len(clips), 4))
    return logits.astype(np.float32), clips % 3, clips


def test_windows_of_a_clip_are_averaged_in_the_clips_order():
    counts = [1, 3, 2, 1, 4]
    logits, label, index = windows_of(counts)
    found, labels, kept = clips.by_clip(logits, label, index)
    parts = np.split(logits.astype(np.float64), np.cumsum(counts)[:-1])
    expected = np.stack([part.mean(axis=0) for part in parts])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(kept, [10, 9, 8, 7, 6])
    np.testing.assert_array_equal(labels, kept % 3)


def test_single_windows_keep_every_bit():
    logits, label, index = windows_of([1] * 9)
    found, _, _ = clips.by_clip(logits, label, index)
    np.testing.assert_array_equal(found, logits)


def test_several_labels_are_kept_whole():
    logits, _, index = windows_of([2, 1])
    label = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
    _, labels, _ = clips.by_clip(logits, label, index)
    np.testing.assert_array_equal(labels, label[1:])
