"""Every form of a layer against the plain one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiojax.models.convolution import convolve
from audiojax.models.forms import forced
from audiojax.models.normalization import normalize
from audiojax.models.pooling import max_pool


def _random(shape, seed, dtype="float32"):
    values = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(values, dtype)


@partial(jax.jit, static_argnames=("stride", "padding", "groups"))
def _value_and_gradients(image, kernel, **window):
    value, pull = jax.vjp(lambda i, k: convolve(i, k, **window), image, kernel)
    weights = jnp.sin(jnp.arange(value.size, dtype=value.dtype))
    return value, *pull(weights.reshape(value.shape))


def _difference(image, kernel, **window):
    """The largest difference of value and gradients, relative to their size."""
    with forced("native"):
        plain = _value_and_gradients(image, kernel, **window)
    with forced("cpu"):
        ours = _value_and_gradients(image, kernel, **window)
    differences = []
    for a, b in zip(plain, ours, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        differences.append(np.abs(a - b).max() / np.abs(a).max())
    return max(differences)


UNEVEN = ((2, 1), (3, 0))


@pytest.mark.parametrize(
    ("taps", "stride", "padding"),
    [
        ((1, 1), (1, 1), "SAME"),
        ((1, 1), (2, 2), "VALID"),
        ((1, 1), (2, 1), UNEVEN),
        ((3, 3), (1, 1), "SAME"),
        ((3, 3), (2, 2), "SAME"),
        ((3, 3), (2, 2), UNEVEN),
        ((3, 3), (3, 1), "VALID"),
        ((5, 5), (1, 1), UNEVEN),
        ((5, 5), (2, 2), "SAME"),
        ((7, 7), (2, 2), ((3, 3), (3, 3))),
        ((1, 7), (1, 1), "SAME"),
        ((2, 2), (4, 4), "VALID"),
    ],
)
@pytest.mark.parametrize("groups", [1, 6])
def test_convolution_is_that_of_xla(groups, taps, stride, padding):
    image = _random((2, 9, 12, 6), 0)
    kernel = _random((*taps, 6 // groups, 6), 1)
    window = {"stride": stride, "padding": padding, "groups": groups}
    assert _difference(image, kernel, **window) < 1e-6


def test_convolution_in_bfloat16_adds_in_float32():
    image = _random((4, 9, 12, 6), 0, "bfloat16")
    for taps, groups in ((1, 1), (5, 6)):
        kernel = _random((taps, taps, 6 // groups, 6), 1, "bfloat16")
        window = {"stride": (1, 1), "padding": "SAME", "groups": groups}
        # One rounding to 8 bits at the end.
        assert _difference(image, kernel, **window) < 2**-7


def test_the_choice_of_form_is_not_lost_in_jax_caches():
    image, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
    window = {"stride": (1, 1), "padding": "SAME", "groups": 2}
    for _ in range(2):
        for choice, native in (("native", True), ("cpu", False), (None, False)):
            with forced(choice):
                text = _value_and_gradients.lower(image, kernel, **window).as_text()
            assert ("stablehlo.convolution" in text) == native


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (3, 2, 0), (2, 2, 0), (3, 1, 1)]
)
def test_maximum_and_its_gradient_are_those_of_xla(kernel, stride, padding, dtype):
    # Whole numbers: many windows have more than one maximum.
    image = jnp.round(_random((2, 9, 12, 6), 0)).astype(dtype)

    @jax.jit
    def value_and_gradient(image):
        value, pull = jax.vjp(lambda i: max_pool(i, kernel, stride, padding), image)
        return value, *pull(jnp.round(10 * _random(value.shape, 1)).astype(dtype))

    with forced("native"):
        plain = value_and_gradient(image)
    with forced("cpu"):
        ours = value_and_gradient(image)
    for expected, found in zip(plain, ours, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def _plain_normalize(image, scale, bias, epsilon):
    image = image.astype(jnp.float32)
    mean, var = image.mean((0, 1, 2)), image.var((0, 1, 2))
    rate = jax.lax.rsqrt(var + epsilon)
    mean, factor, bias = (v[None, None, None] for v in (mean, rate * scale, bias))
    return (image - mean) * factor + bias


@pytest.mark.parametrize("form", ["native", "cpu"])
@pytest.mark.parametrize("batch", [1, 6, 16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_of_normalization_is_that_of_jax(form, batch, dtype):
    image = 3 + 2 * _random((batch, 5, 7, 4), 0, dtype)
    scale, bias, weights = _random((4,), 1), _random((4,), 2), _random(image.shape, 3)

    def gradients(function):
        with forced(form):
            value, pull = jax.vjp(function, image, scale, bias)
            return value, *pull(weights)

    plain = gradients(lambda x, s, b: _plain_normalize(x, s, b, 1e-3))
    ours = gradients(lambda x, s, b: normalize(x, s, b, 1e-3, None)[0])
    for expected, found in zip(plain, ours, strict=True):
        assert found.dtype == expected.dtype
        tolerance = 2**-7 if found.dtype == jnp.bfloat16 else 1e-5
        expected, found = np.float64(expected), np.float64(found)
        assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_gradient_of_normalization_over_devices_is_that_of_the_whole_batch():
    image, weights = _random((16, 3, 3, 4), 0), _random((16, 3, 3, 4), 1)
    scale, bias = _random((4,), 2), _random((4,), 3)

    def gradients(image, weights, axis_name):
        def weighed(image, scale, bias):
            return jnp.sum(normalize(image, scale, bias, 1e-3, axis_name)[0] * weights)

        return jax.grad(weighed, (0, 1, 2))(image, scale, bias)

    whole = gradients(image, weights, None)
    to_image, *to_vectors = jax.pmap(
        lambda image, weights: gradients(image, weights, "batch"), axis_name="batch"
    )(image.reshape(8, 2, 3, 3, 4), weights.reshape(8, 2, 3, 3, 4))
    np.testing.assert_allclose(to_image.reshape(image.shape), whole[0], atol=1e-5)
    for found, expected in zip(to_vectors, whole[1:], strict=True):
        np.testing.assert_allclose(found.sum(0), expected, rtol=1e-5)
