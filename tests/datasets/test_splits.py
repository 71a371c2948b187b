import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from audiojax.datasets import splits
from audiojax.errors import InputError


def per_fold(folds, labels):
    """Clips of each class in each fold: [folds, classes]."""
    table = np.zeros((max(folds), max(labels) + 1), int)
    np.add.at(table, (np.asarray(folds) - 1, labels), 1)
    return table


def unevenness(folds, labels):
    """Largest difference between two folds in clips of one class."""
    return np.ptp(per_fold(folds, labels), axis=0).max()


def grouped(seed, mixed):
    """400 clips of 10 classes in some 80 recordings, of one class each or of many."""
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, 80, 400)
    labels = rng.integers(0, 10, 400) if mixed else sources % 10
    return labels.tolist(), sources.tolist()


@pytest.mark.parametrize("num_folds", [2, 3, 5, 10])
def test_folds_of_clips_of_their_own_are_even_in_every_class(num_folds):
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 200, p=[0.6, 0.2, 0.1, 0.1]).tolist()
    folds = splits.stratified(labels, range(200), num_folds, seed=0)
    assert set(folds) == set(range(1, num_folds + 1))
    assert unevenness(folds, labels) <= 1
    assert np.ptp(np.bincount(folds)[1:]) <= 1


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_recording_stays_whole_and_folds_are_as_even_as_scikit_learn_s(seed, mixed):
    labels, sources = grouped(seed, mixed)
    folds = splits.stratified(labels, sources, 5, seed)
    for source in set(sources):
        assert len({f for f, s in zip(folds, sources, strict=True) if s == source}) == 1
    assert (per_fold(folds, labels) > 0).all()
    theirs = np.zeros(400, int)
    kfold = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for i, (_, test) in enumerate(kfold.split(labels, labels, sources)):
        theirs[test] = i + 1
    assert unevenness(folds, labels) <= unevenness(theirs, labels) + 1


def test_every_fold_has_every_class_however_unequal_its_recordings():
    labels = ["a"] * 104 + ["b"] * 5
    sources = ["long"] * 100 + [f"a{i}" for i in range(4)] + [f"b{i}" for i in range(5)]
    folds = splits.stratified(labels, sources, 5, seed=0)
    for name in "ab":
        of_class = {f for f, label in zip(folds, labels, strict=True) if label == name}
        assert of_class == {1, 2, 3, 4, 5}


def test_several_labels_are_spread_each():
    rng = np.random.default_rng(1)
    hot = rng.random((300, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.03]
    labels = [tuple(map(int, np.flatnonzero(row))) for row in hot]
    assert () in labels  # clips of no class are spread as well
    folds = splits.stratified(labels, range(300), 3, seed=0)
    counts = np.stack([hot[folds == fold].sum(axis=0) for fold in (1, 2, 3)])
    assert np.ptp(counts, axis=0).max() <= 2
    nothing = [int((~hot[folds == fold].any(axis=1)).sum()) for fold in (1, 2, 3)]
    assert max(nothing) - min(nothing) <= 1


def test_the_same_every_time_and_by_seed():
    labels, sources = grouped(0, mixed=False)
    folds = splits.stratified(labels, sources, 5, seed=3)
    np.testing.assert_array_equal(folds, splits.stratified(labels, sources, 5, seed=3))
    assert (folds != splits.stratified(labels, sources, 5, seed=4)).any()
    # What sources and classes are called changes nothing.
    named = [f"recording {source}" for source in sources]
    np.testing.assert_array_equal(folds, splits.stratified(labels, named, 5, seed=3))
    # NumPy promises this stream for good, so folds stay when it is renewed.
    small = splits.stratified([0, 0, 0, 1, 1, 1], range(6), 3, seed=0)
    np.testing.assert_array_equal(small, [3, 1, 2, 1, 3, 2])


def test_a_class_with_too_few_recordings_is_named():
    labels = ["dog"] * 6 + ["cat"] * 8
    sources = ["one", "two", "three"] * 2 + list(range(8))
    with pytest.raises(InputError, match=r"at least 5 recordings for 5 folds; lower"):
        splits.stratified(labels, sources, 5, seed=0)
    with pytest.raises(InputError, match=r"'dog' has 3$"):
        splits.stratified(labels, sources, 4, seed=0)
    assert set(splits.stratified(labels, sources, 3, seed=0)) == {1, 2, 3}


def test_what_makes_no_folds_is_refused():
    with pytest.raises(InputError, match="num_folds is 1"):
        splits.stratified([0, 0], [0, 1], 1, seed=0)
    with pytest.raises(InputError, match="seed of a split is -1"):
        splits.stratified([0, 0], [0, 1], 2, seed=-1)
    with pytest.raises(InputError, match="0 clips and 0 sources"):
        splits.stratified([], [], 2, seed=0)
    with pytest.raises(InputError, match="2 clips and 1 sources"):
        splits.stratified([0, 0], [0], 2, seed=0)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5])
def test_the_share_of_every_class_is_held_out(share):
    labels = [label for label in range(10) for _ in range(100)]
    held = splits.hold_out(labels, range(1000), share, seed=0)
    assert held.dtype == bool
    np.testing.assert_array_equal(held.reshape(10, 100).sum(axis=1), 100 * share)
    assert (held != splits.hold_out(labels, range(1000), share, seed=1)).any()
    np.testing.assert_array_equal(held, splits.hold_out(labels, range(1000), share, 0))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
@pytest.mark.parametrize(
    "sizes", [[1, 1], [50, 50], [100, 1], [30, 30, 30], [100, 40, 40], [10, 1, 1, 1]]
)
def test_both_sides_of_a_held_out_share_have_every_class(share, sizes):
    sources = np.repeat(np.arange(len(sizes)), sizes)
    held = splits.hold_out(["a"] * len(sources), sources.tolist(), share, seed=0)
    assert held.any()
    assert not held.all()
    for source in range(len(sizes)):
        assert len(set(held[sources == source])) == 1


def test_nothing_can_be_held_out_of_one_recording():
    with pytest.raises(InputError, match=r"at least 2 recordings.* 'a' has 1"):
        splits.hold_out(["a"] * 9 + ["b"] * 2, [0] * 9 + [1, 2], 0.2, seed=0)
    for share in (0, 1, -0.5):
        with pytest.raises(InputError, match="between 0 and 1"):
            splits.hold_out([0, 0], [0, 1], share, seed=0)
