import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from audiojax import scores
from audiojax import task as tasks

SINGLE = tasks.TASKS["single_label"]


def test_deviation_over_folds_is_of_the_population():
    rows = [{"single": 0.5, "fold": 1}, {"single": 1.0, "fold": 2}]
    spread = {"single": {"mean": 0.75, "std": 0.25}}
    assert scores.over_folds(rows, ("single", "best")) == spread


def test_an_average_is_compared_with_the_mean_of_its_members():
    label = np.array([0, 1, 2, 2])
    logits = np.random.default_rng(0).normal(size=(4, 3))
    found = scores.of_average([0.25, 0.5], logits, label, SINGLE)
    right = np.mean(logits.argmax(1) == label)
    assert (found["single"], found["ensemble"]) == (0.375, right)
    assert found["gain"] == right - 0.375
    expected = metrics.log_loss(label, special.softmax(logits, axis=1))
    assert found["loss"] == pytest.approx(expected)
    assert found["num_clips"] == 4


def test_equal_members_keep_equal_weights():
    random = np.random.default_rng(0)
    member = random.normal(size=(20, 3))
    label = random.integers(3, size=20)
    found = scores.choose_weights([member] * 3, label, tasks.average, SINGLE)
    np.testing.assert_allclose(found, 1 / 3, rtol=1e-6)


def test_weights_of_five_members_satisfy_the_conditions_of_a_minimum():
    """The gradient is the same for all members in use, and no less for the others."""
    random = np.random.default_rng(1)
    label = random.integers(3, size=200)
    truth = np.eye(3)[label]
    members = [
        random.normal(size=(200, 3)) + skill * truth for skill in (3, 2, 1, 0, -1)
    ]
    weights = scores.choose_weights(members, label, tasks.average, SINGLE)
    p = special.softmax(np.tensordot(weights, members, 1), axis=1)
    gradient = np.array([np.mean(np.sum((p - truth) * m, axis=1)) for m in members])
    used = weights > 1e-6
    assert 1 < used.sum() < 5
    np.testing.assert_allclose(gradient[used], gradient[used].mean(), atol=1e-5)
    assert gradient[~used].min() > gradient[used].max() - 1e-5
