from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiojax import activations, classifier
from audiojax.errors import InputError
from audiojax.task import TASKS
from tests import trained

LAYERS = ("conv2", "conv1.conv1", "conv1")


@pytest.fixture(scope="module")
def tiny_classifier():
    """A tiny classifier and variables with statistics that are not 0 and 1."""
    config = trained.make_config().lock()
    made = classifier.create(config, trained.CLASSES, TASKS["single_label"])
    variables = made.init(jax.random.key(0))
    random = np.random.default_rng(0)
    variables["batch_stats"] = jax.tree.map(
        lambda x: jnp.asarray(random.uniform(0.5, 2, x.shape), x.dtype),
        variables["batch_stats"],
    )
    variables["input"] = {"mean": jnp.arange(3.0), "std": 1 + jnp.arange(3.0)}
    return made, variables


def make_images(made, count):
    shape = (count, *made.image_shape)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def one_by_one(made, variables, images):
    """The stages' outputs [N,H,W,C] of images that are alone in their batch."""
    network = {name: variables[name] for name in ("params", "batch_stats")}
    images = (images - np.arange(3)) / (1 + np.arange(3))

    @jax.jit
    def run(image):
        found = made.network.apply(network, image, train=False, mutable=["stages"])[1]
        return found["stages"]["outputs"]

    found = [run(image[None].astype(np.float32)) for image in images]
    return {name: np.concatenate([x[name] for x in found]) for name in found[0]}


@pytest.mark.parametrize("count", [1, 32, 37])
def test_features_are_those_of_each_image_alone_whatever_the_remainder(
    tiny_classifier, count
):
    made, variables = tiny_classifier
    images = make_images(made, count)
    expected = one_by_one(made, variables, images)
    pooled = activations.pooled(made, variables, images)
    pixels = activations.pixels(made, variables, images)
    assert list(pooled) == list(pixels) == ["conv1", "conv2"]
    for name, maps in expected.items():
        assert pooled[name].dtype == pixels[name].dtype == np.float32
        np.testing.assert_allclose(pooled[name], maps.mean((1, 2)), atol=1e-5)
        flat = maps.reshape(-1, maps.shape[-1])
        np.testing.assert_allclose(pixels[name], flat, atol=1e-5)


def test_layers_come_in_the_order_they_were_asked_for(tiny_classifier):
    made, variables = tiny_classifier
    found = activations.pooled(made, variables, make_images(made, 3), LAYERS)
    assert list(found) == list(LAYERS)
    assert [x.shape for x in found.values()] == [(3, 16), (3, 8), (3, 8)]


def test_sizes_are_told_without_computing(tiny_classifier):
    made, variables = tiny_classifier
    (batch,) = activations.batches(made, variables, make_images(made, 5), LAYERS)
    sizes = activations.sizes(made, LAYERS)
    assert list(sizes) == list(LAYERS)
    assert {name: x.shape for name, x in batch.items()} == {
        name: (5, *size) for name, size in sizes.items()
    }


def cache_size():
    function: Any = activations._features
    return function._cache_size()


def test_other_variables_and_sizes_of_the_last_batch_compile_nothing(tiny_classifier):
    made, variables = tiny_classifier
    activations.pooled(made, variables, make_images(made, 40))
    compiled = cache_size()
    other = made.init(jax.random.key(1))
    for count in (70, 5):
        activations.pooled(made, other, make_images(made, count))
    assert cache_size() == compiled


def test_bad_requests_are_refused(tiny_classifier):
    made, variables = tiny_classifier
    with pytest.raises(InputError, match="its stages are: conv1, conv2"):
        activations.pooled(made, variables, make_images(made, 2), ["conv9"])
    with pytest.raises(InputError, match="its stages are: conv1, conv2"):
        activations.sizes(made, ["head"])
    with pytest.raises(InputError, match="no images"):
        activations.pooled(made, variables, make_images(made, 0))
