import numpy as np
import pytest
from sklearn.utils import class_weight

from audiojax.datasets import balance
from audiojax.errors import InputError


def test_weights_are_scikit_learn_s_balanced_ones():
    label = np.random.default_rng(0).choice(4, size=300, p=[0.7, 0.2, 0.08, 0.02])
    expected = class_weight.compute_sample_weight("balanced", label)
    found = balance.clip_weights([(int(i),) for i in label], 4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_classes_without_clips_change_nothing():
    labels = [(0,), (0,), (0,), (2,)]
    expected = class_weight.compute_sample_weight("balanced", [0, 0, 0, 2])
    np.testing.assert_allclose(balance.clip_weights(labels, 5), expected, rtol=1e-6)


def test_several_classes_weigh_their_mean_and_none_weighs_one():
    found = balance.clip_weights([(0,), (0, 1), (0,), ()], 2)
    rare, often = 4 / (2 * 1), 4 / (2 * 3)
    np.testing.assert_allclose(found, [often, (rare + often) / 2, often, 1], rtol=1e-6)


def test_an_unknown_balance_is_named():
    with pytest.raises(InputError, match="none, class_weights, sampling"):
        balance.check("oversample")
