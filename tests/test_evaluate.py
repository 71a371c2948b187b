import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from audiojax import evaluate
from audiojax.errors import InputError


def test_scores_are_scikit_learns():
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 5)).astype(np.float32) * 3
    label = random.integers(5, size=40)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ours = evaluate.scores(logits, label)
    assert ours["accuracy"] == metrics.accuracy_score(label, logits.argmax(1))
    expected = metrics.log_loss(label, probabilities, labels=range(5))
    assert ours["loss"] == pytest.approx(expected, rel=1e-9)
    assert ours["num_clips"] == 40


def test_large_logits_keep_a_finite_loss():
    ours = evaluate.scores(np.array([[1e4, 0.0]], np.float32), np.array([1]))
    assert ours == {"accuracy": 0.0, "loss": 1e4, "num_clips": 1}


def test_nan_logits_are_not_scored_as_class_zero():
    with pytest.raises(InputError, match="1 of 2 clips"):
        evaluate.scores(np.array([[1.0, 0.0], [np.nan, np.nan]]), np.array([0, 0]))


def test_average_is_the_mean_of_logits():
    members = [np.array([[1.0, 3.0]]), np.array([[3.0, 0.0]])]
    np.testing.assert_array_equal(evaluate.average(members), [[2.0, 1.5]])


def test_average_takes_weights_of_any_sum():
    members = [np.array([[1.0, 3.0]]), np.array([[3.0, 0.0]])]
    found = evaluate.average(members, [3, 1])
    np.testing.assert_allclose(found, [[1.5, 2.25]], rtol=1e-12)


def test_average_of_probabilities_is_scipys_softmax_averaged():
    random = np.random.default_rng(0)
    members = [random.normal(size=(7, 4)) * scale for scale in (1, 3, 9)]
    for weights in (None, [0.2, 0.5, 0.3], [2.0, 0.0, 2.0]):
        softmaxes = [special.softmax(member, axis=1) for member in members]
        expected = np.average(softmaxes, axis=0, weights=weights)
        found = evaluate.average_probabilities(members, weights)
        np.testing.assert_allclose(np.exp(found), expected, rtol=1e-12)


def test_average_of_probabilities_keeps_the_smallest():
    """e^-2000 is 0 in float64; its logarithm is kept."""
    member = np.array([[2000.0, 0.0]])
    found = evaluate.average_probabilities([member, member])
    np.testing.assert_allclose(found, [[0.0, -2000.0]], atol=1e-9)


def test_spread_is_of_the_population():
    assert evaluate.spread([0.5, 1.0]) == {"mean": 0.75, "std": 0.25}


def test_predict_counts_every_clip_once():
    """Of a padded last batch only the real clips come back, in order."""

    def eval_step(_variables, batch):
        return jnp.stack([batch["index"] * 1.0, batch["index"] * 2.0], axis=-1)

    batches = [
        {"index": np.array([4, 7]), "label": np.array([0, 1]), "mask": np.ones(2)},
        {
            "index": np.array([2, 2]),
            "label": np.array([1, 1]),
            "mask": np.array([1.0, 0.0]),
        },
    ]
    logits, label, index = evaluate.predict(eval_step, {}, batches)
    np.testing.assert_array_equal(logits, [[4, 8], [7, 14], [2, 4]])
    np.testing.assert_array_equal(label, [0, 1, 1])
    np.testing.assert_array_equal(index, [4, 7, 2])
