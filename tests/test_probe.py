import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiojax import probe
from audiojax.errors import InputError


@pytest.fixture(scope="module")
def digits():
    """Small pictures of digits: 200 to train on, 200 to test."""
    pixels, label = load_digits(return_X_y=True)
    return pixels[:200], label[:200], pixels[200:400], label[200:400]


def test_a_probe_is_a_logistic_regression_of_standardized_features(digits):
    train, train_label, test, test_label = digits
    found = probe.fit(*digits)
    model = LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8)
    pipeline = make_pipeline(StandardScaler(), model).fit(train, train_label)
    assert found.accuracy == pipeline.score(test, test_label)
    assert found.train_accuracy == pipeline.score(train, train_label)
    assert found.accuracy > 0.8


def test_more_dimensions_than_clips_give_the_same_as_all_of_them(digits):
    train, train_label, test, test_label = digits
    mixing = np.random.default_rng(0).normal(size=(64, 500))
    wide, wide_test = np.tanh(train @ mixing / 50), np.tanh(test @ mixing / 50)
    found = probe.fit(wide, train_label, wide_test, test_label)
    model = LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8)
    pipeline = make_pipeline(StandardScaler(), model).fit(wide, train_label)
    assert found.accuracy == pytest.approx(
        pipeline.score(wide_test, test_label), abs=1.5 / 200
    )


def test_the_same_clips_give_the_same_probe(digits):
    assert probe.fit(*digits) == probe.fit(*digits)


def test_noise_gets_the_strongest_penalty_and_clean_features_a_weak_one():
    random = np.random.default_rng(0)
    label = np.arange(400) % 2
    noise = random.normal(size=(400, 40))
    found = probe.fit(noise[:200], label[:200], noise[200:], label[200:])
    assert found.strength == min(probe.STRENGTHS)
    assert 0.35 < found.accuracy < 0.65
    clean = noise.copy()
    clean[:, 0] += 20 * label
    found = probe.fit(clean[:200], label[:200], clean[200:], label[200:])
    assert found.strength == max(probe.STRENGTHS)
    assert found.accuracy == 1


def test_clips_of_one_recording_choose_no_strength_for_each_other():
    """Each recording's clips are one vector and little noise: easy if one is seen."""
    random = np.random.default_rng(0)
    recordings = np.repeat(np.arange(60), 5)
    label = recordings % 2
    features = np.repeat(random.normal(size=(60, 80)), 5, axis=0)
    features += 0.01 * random.normal(size=features.shape)
    data = features, label, features, label
    assert probe.fit(*data).strength > 0.1
    assert probe.fit(*data, groups=recordings).strength < 0.1


@pytest.mark.parametrize("counts", [(1, 5), (2, 2), (1, 1)])
def test_few_clips_of_a_class_are_no_hindrance(counts):
    label = np.repeat([3, 7], counts)
    features = label[:, None] + np.zeros((1, 2))
    found = probe.fit(features, label, features, label)
    assert found.accuracy >= counts[1] / sum(counts)
    assert (found.strength == probe.DEFAULT_STRENGTH) == (min(counts) == 1)


def test_a_class_that_is_in_one_group_alone_is_no_hindrance(digits):
    train, label, test, test_label = digits
    groups = np.where(label == 4, 0, np.arange(200) % 3)
    assert probe.fit(train, label, test, test_label, groups).accuracy > 0.8


def test_what_a_probe_cannot_take_is_refused(digits):
    train, train_label, test, test_label = digits
    with pytest.raises(InputError, match="one class a clip"):
        probe.fit(train, np.eye(10)[train_label], test, test_label)
    with pytest.raises(InputError, match=r"shape \(200, 64\) and 199 labels"):
        probe.fit(train, train_label[:-1], test, test_label)
    with pytest.raises(InputError, match="64 dimensions for training and of 63"):
        probe.fit(train, train_label, test[:, 1:], test_label)
    with pytest.raises(InputError, match="are of one class"):
        probe.fit(train, 0 * train_label, test, test_label)
    with pytest.raises(InputError, match="not finite"):
        probe.fit(train, train_label, np.full_like(test, np.inf), test_label)
