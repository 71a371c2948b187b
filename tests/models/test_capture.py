import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from jax import lax

from audiojax import models, pretrained
from audiojax.errors import InputError
from scripts import convert_weights, make_goldens
from tests.models import checkpoints
from tests.tiny import Tiny

# Nothing is below the zeros that a rectified image is padded with.
EDGES = ((0, 0), (1, 1), (1, 1), (0, 0))
# One network of each family.
FAMILIES = ("resnet18", "densenet121", "inception_v3", "efficientnet_lite0")
IMAGE = jnp.asarray(make_goldens.image((75, 91)))


@functools.cache
def made(name):
    """A network and variables that are the same on all machines."""
    network, variables, values = checkpoints.made(name, 10)
    return network, pretrained.fit("made", values, variables)


def run(name, *layers):
    network, variables = made(name)
    capture = jax.jit(functools.partial(models.capture, network, names=layers))
    found = capture(variables, IMAGE)
    assert set(found) == set(layers)
    return [np.asarray(found[name]) for name in layers]


def assert_same(found, expected):
    scale = np.abs(expected).max()
    assert scale > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


def relu6(x):
    return np.clip(x, 0, 6)


def test_layers_of_a_resnet_are_what_its_blocks_are_made_of():
    names = ("layer1", "layer1.0", "layer1.1", "layer1.1.bn2", "conv1", "conv1.bn1")
    stage, first, last, branch, stem, norm = run("resnet18", *names)
    assert_same(last, stage)
    assert_same(np.maximum(branch + first, 0), last)
    # The stem's stage is pooled, its normalization is not.
    assert stem.shape[1:3] == ((norm.shape[1] + 1) // 2, (norm.shape[2] + 1) // 2)
    pooled = nn.max_pool(np.pad(np.maximum(norm, 0), EDGES), (3, 3), (2, 2))
    assert_same(np.asarray(pooled), stem)


@pytest.mark.slow
def test_layers_of_a_densenet_are_the_channels_of_its_blocks():
    layers = [f"denseblock1.denselayer{i}.conv2" for i in range(1, 7)]
    stem, stage, *outputs = run("densenet121", "conv0", "denseblock1", *layers)
    assert_same(np.concatenate([stem, *outputs], axis=-1), stage)


@pytest.mark.slow
def test_layers_of_an_inception_are_the_channels_of_its_stages():
    branches = ("branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool")
    names = (f"Mixed_5b.{branch}" for branch in branches)
    stage, norm, *outputs = run(
        "inception_v3", "Mixed_5b", "Mixed_5b.branch1x1.bn", *names
    )
    assert_same(np.concatenate(outputs, axis=-1), stage)
    assert_same(np.maximum(norm, 0), outputs[0])


def test_layers_of_an_efficientnet_are_what_its_blocks_are_made_of():
    names = ("blocks.1", "blocks.1.0", "blocks.1.1", "blocks.1.1.bn3", "conv_stem")
    stage, first, last, branch, stem, norm = run(
        "efficientnet_lite0", *names, "conv_stem.bn1"
    )
    assert_same(last, stage)
    assert_same(branch + first, last)
    assert_same(relu6(norm), stem)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if i else name
        for i, name in enumerate(FAMILIES)
    ],
)
def test_every_convolution_has_a_name(name):
    network, variables = made(name)
    channels = {}
    for stage, paths in list(models.stage_paths(network).items())[:-1]:
        for path in paths:
            # In a stage of several layers each has its own name first.
            own = path.split(".")[-1:] if len(paths) > 1 else []
            inside: Any = variables["params"]
            for part in path.split("."):
                inside = inside[part]
            leaves: Any = traverse_util.flatten_dict(inside)
            for leaf, value in leaves.items():
                layer = ".".join([stage, *own, *leaf[:-1]])
                if leaf[-1] == "kernel" and layer != stage:
                    channels[layer] = value.shape[-1]
    kernels = traverse_util.flatten_dict(variables["params"])
    assert len(channels) == sum(path[-1] == "kernel" for path in kernels) - 1
    found = jax.eval_shape(
        functools.partial(models.capture, network, names=tuple(channels)),
        variables,
        IMAGE,
    )
    assert {layer: x.shape[-1] for layer, x in found.items()} == channels
    assert {x.ndim for x in found.values()} == {4}


def test_a_convolution_is_what_lax_computes():
    network = Tiny(num_classes=5)
    image = jax.random.normal(jax.random.key(0), (2, 33, 40, 3))
    variables: Any = network.init(jax.random.key(1), image, train=False)
    found = models.capture(network, variables, image, ["conv1.conv1", "conv2"])
    expected = lax.conv_general_dilated(
        image,
        variables["params"]["conv1"]["kernel"],
        (4, 4),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(found["conv1.conv1"], expected, atol=1e-5)
    until = network.apply(variables, image, train=False, until="conv2")
    np.testing.assert_array_equal(found["conv2"], until)


def test_the_layers_that_the_published_repetition_compared_are_there():
    network = models.create("densenet201", 10)
    params = convert_weights.empty(network)["params"]
    for block, layer in ((1, 2), (1, 6), (2, 12), (3, 48)):
        name = f"denseblock{block}.denselayer{layer}.conv2"
        weights = models.layer_params(network, params, name)
        assert {x: y.shape for x, y in weights.items()} == {"kernel": (3, 3, 128, 32)}
    assert set(models.layer_params(network, params, "conv0.conv0")) == {"kernel"}
    stem = models.layer_params(network, params, "conv0")
    assert set(stem["features"]) == {"conv0", "norm0"}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer9", "no stage or layer 'layer9'; its stages are: conv1, layer1, layer2"),
        ("features.conv0", "its stages are: conv1, "),
        ("fc", "its stages are: conv1, "),
        ("layer1.2", "no layer 'layer1.2'; in layer1 there are: 0, 1$"),
        ("layer1.1.conv9", "in layer1.1 there are: .*conv1"),
        ("layer1.1.conv1.kernel", "in layer1.1.conv1 there are: no layers$"),
        ("conv1.bn2", "in conv1 there are: conv1, bn1$"),
        ("layer1.", "in layer1 there are: 0, 1$"),
    ],
)
def test_an_unknown_layer_is_an_error_that_lists_what_there_is(layer, message):
    network, variables = made("resnet18")
    with pytest.raises(InputError, match=message):
        models.capture(network, variables, IMAGE, [layer])
