import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from audiojax import calibration
from audiojax.task import TASKS

SINGLE, MULTI = TASKS["single_label"], TASKS["multi_label"]


@pytest.mark.parametrize(("right", "count"), [(0, 7), (3, 7), (80, 80), (377, 400)])
def test_wilson_is_scipys(right, count):
    found = calibration.wilson(right / count, count)
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_parts_together_are_one_share():
    found = calibration.wilson_together([3 / 10, 40 / 50], [10, 50])
    expected = stats.binomtest(43, 60).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_map_of_weighted_clips_is_scikit_learns():
    random = np.random.default_rng(0)
    label = (random.random((40, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.float32)
    logits = random.normal(size=(40, 4)).round(1)  # some are equal
    weights = random.integers(0, 3, (5, 40))
    weights[1] = label[:, 0] == 0  # the first class does not occur
    found = calibration.mean_average_precision(label, logits, weights)
    for row, value in zip(weights, found, strict=True):
        there = [i for i in range(4) if (row * label[:, i]).any()]
        expected = [
            metrics.average_precision_score(
                label[:, i], logits[:, i], sample_weight=row
            )
            for i in there
        ]
        assert value == pytest.approx(np.mean(expected))


def test_resamples_are_always_the_same_and_draw_as_many_clips():
    drawn = calibration.resamples(30)
    assert drawn.shape == (calibration.RESAMPLES, 30)
    assert (drawn.sum(axis=1) == 30).all()
    np.testing.assert_array_equal(drawn, calibration.resamples(30))
    means = drawn @ np.arange(30) / 30
    assert means.std() == pytest.approx(np.arange(30).std() / math.sqrt(30), rel=0.2)


def test_the_calibration_error_is_the_weighted_gap():
    # In bins of a half: 0.5 is in the first, whose upper edge it is.
    given = np.array([0.2, 0.5, 0.6, 0.8, 1.0])
    right = np.array([0, 1, 0, 1, 1])
    bins = calibration.reliability(given, right, num_bins=2)
    assert bins.count.tolist() == [2, 3]
    np.testing.assert_allclose(bins.confidence, [0.35, 0.8])
    np.testing.assert_allclose(bins.accuracy, [0.5, 2 / 3])
    assert bins.error == pytest.approx(2 / 5 * 0.15 + 3 / 5 * (0.8 - 2 / 3))


def test_the_bins_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    given = random.random(500)
    right = random.random(500) < given**2
    bins = calibration.reliability(given, right)
    share, mean = calibration_curve(right, given, n_bins=15)
    some = bins.count > 0
    np.testing.assert_allclose(bins.accuracy[some], share)
    np.testing.assert_allclose(bins.confidence[some], mean)


def test_confidences_of_both_tasks():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    given, right = calibration.confidences(logits, np.array([0, 0]), SINGLE)
    np.testing.assert_allclose(given, special.softmax(logits, axis=1).max(axis=1))
    assert right.tolist() == [True, False]
    given, right = calibration.confidences(logits, np.eye(2), MULTI)
    np.testing.assert_allclose(given, special.expit(logits).ravel())
    assert right.tolist() == [True, False, False, True]


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_temperature_of_scaled_logits(scale):
    """Labels drawn by the logits' own probabilities: the scale is found again."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(8000, 5))
    drawn = special.softmax(logits, axis=1).cumsum(axis=1)
    label = (random.random((8000, 1)) > drawn).sum(axis=1).clip(max=4)
    found = calibration.temperature(logits * scale, label, SINGLE)
    assert found == pytest.approx(scale, rel=0.05)

    def loss(value):
        log = special.log_softmax(logits * scale / value, axis=1)
        return -log[np.arange(len(label)), label].mean()

    best: Any = optimize.minimize_scalar(loss, bounds=(0.1, 10), method="bounded")
    assert found == pytest.approx(best.x, rel=5e-3)


def test_the_temperature_of_several_labels():
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(4000, 3))
    label = (random.random((4000, 3)) < special.expit(logits)).astype(np.float32)
    found = calibration.temperature(logits * 3, label, MULTI)
    assert found == pytest.approx(3, rel=0.05)


def test_the_temperature_is_bounded_where_all_is_right():
    found = calibration.temperature(np.eye(3) * 5, np.arange(3), SINGLE)
    limit = calibration.LARGEST_TEMPERATURE
    assert 1 / limit <= found < 0.1
