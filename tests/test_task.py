import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from audiojax import task as tasks
from audiojax.errors import InputError

SINGLE, MULTI = tasks.TASKS["single_label"], tasks.TASKS["multi_label"]


def test_scores_are_scikit_learns():
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 5)).astype(np.float32) * 3
    label = random.integers(5, size=40)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ours = SINGLE.scores(logits, label)
    assert ours["accuracy"] == metrics.accuracy_score(label, logits.argmax(1))
    expected = metrics.log_loss(label, probabilities, labels=range(5))
    assert ours["loss"] == pytest.approx(expected, rel=1e-9)
    assert ours["num_clips"] == 40


def test_large_logits_keep_a_finite_loss():
    ours = SINGLE.scores(np.array([[1e4, 0.0]], np.float32), np.array([1]))
    assert (ours["accuracy"], ours["loss"], ours["num_clips"]) == (0.0, 1e4, 1)


def test_nan_logits_are_not_scored_as_class_zero():
    with pytest.raises(InputError, match="1 of 2 clips"):
        SINGLE.scores(np.array([[1.0, 0.0], [np.nan, np.nan]]), np.array([0, 0]))


def test_average_is_the_mean_of_logits():
    members = [np.array([[1.0, 3.0]]), np.array([[3.0, 0.0]])]
    np.testing.assert_array_equal(tasks.average(members), [[2.0, 1.5]])


def test_average_takes_weights_of_any_sum():
    members = [np.array([[1.0, 3.0]]), np.array([[3.0, 0.0]])]
    found = tasks.average(members, [3, 1])
    np.testing.assert_allclose(found, [[1.5, 2.25]], rtol=1e-12)


def test_average_of_probabilities_is_scipys_softmax_averaged():
    random = np.random.default_rng(0)
    members = [random.normal(size=(7, 4)) * scale for scale in (1, 3, 9)]
    for weights in (None, [0.2, 0.5, 0.3], [2.0, 0.0, 2.0]):
        softmaxes = [special.softmax(member, axis=1) for member in members]
        expected = np.average(softmaxes, axis=0, weights=weights)
        found = SINGLE.average_probabilities(members, weights)
        np.testing.assert_allclose(np.exp(found), expected, rtol=1e-12)


def test_average_of_probabilities_keeps_the_smallest():
    """e^-2000 is 0 in float64; its logarithm is kept."""
    member = np.array([[2000.0, 0.0]])
    found = SINGLE.average_probabilities([member, member])
    np.testing.assert_allclose(found, [[0.0, -2000.0]], atol=1e-9)


def test_single_label_scores_are_scikit_learn_s():
    random = np.random.default_rng(3)
    label = random.choice(4, size=200, p=[0.6, 0.2, 0.15, 0.05])
    logits = random.normal(size=(200, 4)) + 1.5 * np.eye(4)[label]
    predicted = logits.argmax(1)
    found = SINGLE.scores(logits, label)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, predicted))
    _, recalls, f1, _ = metrics.precision_recall_fscore_support(label, predicted)
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert found["loss"] == pytest.approx(
        metrics.log_loss(label, special.softmax(logits, axis=1))
    )
    assert SINGLE.metric == "accuracy"


def test_a_class_that_is_predicted_and_not_there_has_no_recall():
    found = SINGLE.scores(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 1, 0]))
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)


def test_multi_label_scores_are_scikit_learn_s():
    random = np.random.default_rng(4)
    label = (random.random((150, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]).astype(np.float32)
    logits = random.normal(size=(150, 5)) + 2 * label
    found = MULTI.scores(logits, label)
    chances = special.expit(logits)
    there = [0, 1, 2, 3]  # the last class occurs nowhere
    assert found["mAP"] == pytest.approx(
        metrics.average_precision_score(label[:, there], chances[:, there])
    )
    by_class = [
        metrics.log_loss(label[:, i], chances[:, i], labels=[0, 1]) for i in range(5)
    ]
    assert found["loss"] == pytest.approx(np.mean(by_class))
    by_class = [metrics.f1_score(label[:, i], chances[:, i] > 0.5) for i in there]
    assert found["macro_f1"] == pytest.approx(np.sum(by_class) / 5)
    assert found["num_clips"] == 150
    assert MULTI.metric == "mAP"


def test_probabilities_of_several_classes_are_averaged_each_by_itself():
    random = np.random.default_rng(5)
    members = [random.normal(scale=4, size=(6, 3)) for _ in range(3)]
    found = MULTI.average_probabilities(members, [1, 2, 1])
    expected = np.average(
        [special.expit(m) for m in members], axis=0, weights=[1, 2, 1]
    )
    np.testing.assert_allclose(special.expit(found), expected, rtol=1e-12)


def test_smoothed_targets_are_arithmetic():
    """By a fifth of the way: to quarters with one class a clip, to halves with more."""
    mixed = jnp.array([[1, 0, 0, 0], [0.7, 0.3, 0, 0]])
    found = SINGLE.smoothed(mixed, 0.2)
    np.testing.assert_allclose(found, 0.8 * mixed + 0.05, rtol=1e-6)
    np.testing.assert_allclose(np.sum(found, axis=1), [1, 1], rtol=1e-6)
    several = jnp.array([[1, 0, 1], [0, 0, 0.5]])
    expected = [[0.9, 0.1, 0.9], [0.1, 0.1, 0.5]]
    np.testing.assert_allclose(MULTI.smoothed(several, 0.2), expected, rtol=1e-6)
