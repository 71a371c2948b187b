"""Attributions of functions whose answer arithmetic gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from audiojax import attribution

KEY = jax.random.key(0)
SHAPE = (4, 5, 3)


@pytest.fixture
def linear():
    """A linear score, its weights, an input and a baseline."""
    rng = np.random.default_rng(0)
    weights, image, baseline = (rng.normal(size=SHAPE).astype("f4") for _ in range(3))
    return lambda x: (x * weights[None]).sum((1, 2, 3)), weights, image, baseline


@pytest.mark.parametrize(
    "path", [attribution.linear_path(), attribution.geometric_path(), None]
)
def test_integrated_gradients_of_a_linear_score(linear, path):
    score, weights, image, baseline = linear
    path = path or attribution.linear_path(8)
    found, missed = attribution.integrated_gradients(score, image, baseline, path)
    np.testing.assert_allclose(found, weights * (image - baseline), rtol=1e-4)
    assert abs(missed) < 1e-4


def test_smooth_grad_of_a_linear_score_is_its_gradient(linear):
    score, weights, image, _ = linear
    found = attribution.smooth_grad(score, image, KEY)
    np.testing.assert_allclose(found, weights, rtol=1e-5)


def test_smooth_grad_averages_over_noise_of_the_input_s_range():
    """Of x cubed it is 3 x² + 3 σ², and the key alone decides the noise."""
    image = jnp.linspace(0, 2, 60).reshape(SHAPE)

    def found(key):
        return attribution.smooth_grad(
            lambda x: (x**3).sum((1, 2, 3)), image, key, samples=4096
        )

    sigma = attribution.NOISE * 2
    expected = 3 * np.square(image) + 3 * sigma**2
    np.testing.assert_allclose(found(KEY), expected, atol=0.25)
    assert (found(KEY) == found(KEY)).all()
    assert (found(KEY) != found(jax.random.key(1))).any()


def test_integrated_gradients_of_a_square_are_exact():
    """The gradient is linear on the path, so that the middle of a step is its mean."""
    x, start = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.0, 1.0, 0.5])
    path = attribution.linear_path(8)
    found, missed = attribution.integrated_gradients(
        lambda x: (x**2).sum(axis=1), x, start, path
    )
    np.testing.assert_allclose(found, x**2 - start**2, rtol=1e-5)
    assert abs(missed) < 1e-5


def test_what_the_gradients_miss_is_shared_out_by_size():
    """Two kinks, of which eight steps see one at a wrong place and none of the other.

    With a gate open from 0.7 to 1 of the path, and another one from 0.93 to 0.97.
    """
    x = jnp.array([2.0, 1.0, 0.0])

    def score(x):
        gated = 10 * jax.nn.relu(x[:, 0] - 1.4) + 3 * jax.nn.relu(x[:, 1] - 0.7)
        spike = 100 * (jax.nn.relu(x[:, 1] - 0.93) - jax.nn.relu(x[:, 1] - 0.97))
        return gated + spike + 0 * x[:, 2]

    difference = 6 + 0.9 + 4
    found, missed = attribution.integrated_gradients(
        score, x, jnp.zeros(3), attribution.linear_path(8)
    )
    # Middles at 0.6875 (shut, 0.7 to 0.75 is missed), 0.8125 and 0.9375 (in the spike).
    of_steps = np.array([[0, 0], [2.5, 0.375], [2.5, 0.375 + 12.5]])
    assert missed == pytest.approx(difference - of_steps.sum(), abs=1e-3)
    rises = np.array([0.05 * 23, 0.125 * 23, 0.125 * 23 + 4])
    with np.errstate(invalid="ignore"):
        scaled = of_steps * rises[:, None] / of_steps.sum(axis=1, keepdims=True)
    # The step without a gradient has nothing to be shared out over.
    np.testing.assert_allclose(found[:2], np.nansum(scaled, axis=0), atol=1e-3)
    assert found[2] == 0
    many, missed = attribution.integrated_gradients(
        score, x, jnp.zeros(3), attribution.linear_path(2000)
    )
    np.testing.assert_allclose(many, [6, 4.9, 0], atol=0.02)
    assert many.sum() == pytest.approx(difference, abs=1e-2)
    assert abs(missed) < 0.05


def test_the_path_of_a_waveform_follows_a_logarithm():
    """Its gradients are enough, where even steps miss nearly all of the difference."""
    x = jnp.array([0.5, -0.25, 0.0])

    def score(x):
        return jnp.log(1e6 * jnp.square(x).sum(axis=1) + 1e-6)

    difference = float(score(x[None])[0] - np.log(1e-6))
    for path, enough in [
        (attribution.geometric_path(), True),
        (attribution.linear_path(), False),
    ]:
        found, missed = attribution.integrated_gradients(
            score, x, jnp.zeros_like(x), path
        )
        assert float(found.sum()) == pytest.approx(difference, rel=1e-4)
        assert (abs(float(missed)) < 0.01 * difference) is enough


def test_grad_cam_by_hand():
    """Two maps of 2 by 2; the head is a mean over the image and a linear layer."""
    maps = jnp.array([[[1.0, 0], [2, 1]], [[3, 1], [4, -2]]])
    head = np.array([2, -8], "f4")

    def logit(x):
        return x.mean(axis=(1, 2)) @ head

    # The gradient of each pixel is the head's weight over the number of pixels.
    expected = 0.5 * maps[..., 0] - 2 * maps[..., 1]
    found = attribution.grad_cam(logit, maps, (2, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    large = attribution.grad_cam(logit, maps, (4, 6))
    assert large.shape == (4, 6)
    # A corner keeps its value, and the middle of a row's ends is their mean.
    assert large[0, 0] == pytest.approx(expected[0, 0])
    assert large[0, 2:4].mean() == pytest.approx(expected[0].mean())


def test_deletion_and_insertion_of_a_linear_probability():
    rng = np.random.default_rng(1)
    shares = rng.random((4, 8))
    shares /= shares.sum()
    image, baseline = np.ones((4, 8, 3)), np.zeros((4, 8, 3))

    def probability(images):
        return (images.mean(-1) * shares[None]).sum((1, 2))

    deletion, insertion = attribution.curves(
        probability, image, baseline, shares, KEY, num_shares=5
    )
    largest = np.sort(shares.ravel())[::-1]
    expected = [largest[: 8 * i].sum() for i in range(5)]
    np.testing.assert_allclose(insertion.probability, expected)
    np.testing.assert_allclose(deletion.probability, 1 - np.array(expected))
    assert insertion.area == pytest.approx(np.mean(expected[1:4]) * 3 / 4 + 1 / 8)
    assert deletion.area == pytest.approx(1 - insertion.area)
    assert insertion.random.shape == (5, 5)
    assert insertion.area > insertion.random_area
    assert deletion.area < deletion.random_area


def test_the_strongest_are_as_many_as_asked_for():
    order = np.array([[0.0, 3.0], [0.0, -1.0]])
    found = attribution.strongest(order, np.array([0, 1, 2, 4]))
    assert found.sum((1, 2)).tolist() == [0, 1, 2, 4]
    assert found[1, 0, 1]
    assert not found[2, 1, 1]


def test_likeness_is_the_absolute_rank_correlation():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 6, 7))
    ranks = [stats.rankdata(x) for x in (one, other)]
    expected = np.corrcoef(ranks)[0, 1]
    assert attribution.likeness(one, other) == pytest.approx(abs(expected))
    assert attribution.likeness(one, np.exp(one)) == pytest.approx(1)
    assert attribution.likeness(one, -one) == pytest.approx(1)
    assert attribution.likeness(np.zeros((6, 7)), one) == 1
    assert attribution.likeness(one, np.zeros((6, 7))) == 0
