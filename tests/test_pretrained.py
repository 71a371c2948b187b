"""Weights files: names, strict loading, and what can be wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiojax import models, pretrained
from audiojax.errors import InputError
from scripts import convert_weights
from tests.tiny import Tiny

# By torchvision and timm.
PUBLISHED = {
    "resnet50": ("layer4.2.bn3.running_var", (2048,)),
    "resnet18": ("layer2.0.downsample.0.weight", (128, 64, 1, 1)),
    "densenet201": (
        "features.denseblock3.denselayer48.conv2.weight",
        (32, 128, 3, 3),
    ),
    "inception_v3": ("Mixed_6b.branch7x7_2.conv.weight", (128, 128, 1, 7)),
    "efficientnet_lite0": ("blocks.3.1.conv_dw.weight", (480, 1, 3, 3)),
}


def variables_of(channels=3, classes=7, seed=0):
    network = Tiny(num_classes=classes)
    image = jnp.zeros((1, 32, 32, channels))
    return network.init(jax.random.key(seed), image, train=False)


@pytest.fixture
def arrays():
    """A published checkpoint of the tiny network."""
    return pretrained.to_published(variables_of(seed=1))


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_layout_are_the_published_ones(name):
    variables = convert_weights.empty(models.create(name, 1000))
    published = pretrained.to_published(variables)
    array, shape = PUBLISHED[name]
    assert published[array].shape == shape
    head = {"resnet50": "fc", "resnet18": "fc", "inception_v3": "fc"}
    features = {"resnet18": 512, "efficientnet_lite0": 1280, "densenet201": 1920}
    weight = published[f"{head.get(name, 'classifier')}.weight"]
    assert weight.shape == (1000, features.get(name, 2048))


def test_a_kernel_is_transposed():
    variables = variables_of()
    kernel = variables["params"]["conv1"]["kernel"]
    published = pretrained.to_published(variables)["conv1.weight"]
    assert kernel[2, 1, 0, 5] == published[5, 0, 2, 1]


def test_saved_variables_load_again(tmp_path):
    path = tmp_path / "tiny.safetensors"
    saved = variables_of(seed=1)
    pretrained.save(path, saved)
    assert_equal(pretrained.load(path, variables_of(seed=2)), saved)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_other_collections_are_kept(arrays):
    variables = {**variables_of(), "input": {"mean": jnp.ones(3)}}
    assert_equal(pretrained.fit("x", arrays, variables)["input"], variables["input"])


def test_only_what_is_new_keeps_its_values_and_the_log_says_so(arrays, caplog):
    fresh = variables_of(classes=3)
    with caplog.at_level("INFO"):
        loaded = pretrained.fit("x", arrays, fresh, new=("fc",))
    assert_equal(loaded["params"]["fc"], fresh["params"]["fc"])
    assert "new and not loaded: fc.bias, fc.weight" in caplog.text
    published = pretrained.to_published(loaded)
    for name in arrays.keys() - {"fc.bias", "fc.weight"}:
        np.testing.assert_array_equal(published[name], arrays[name])


def test_another_number_of_classes_is_refused_where_the_head_is_not_new(arrays):
    with pytest.raises(InputError, match=r"fc.weight \(7, 16\) instead of \(3, 16\)"):
        pretrained.fit("x", arrays, variables_of(classes=3))


def test_all_that_differs_is_listed_at_once(arrays):
    del arrays["conv2.weight"], arrays["bn2.running_mean"]
    arrays["layer9.weight"] = np.zeros(3, np.float32)
    arrays["bn1.bias"] = np.zeros(9, np.float32)
    arrays["bn1.weight"] = arrays["bn1.weight"].astype(np.float16)
    with pytest.raises(InputError) as caught:
        pretrained.fit("w.safetensors", arrays, variables_of(), new=("head",))
    assert str(caught.value) == (
        "w.safetensors: 2 parameters missing: bn2.running_mean, conv2.weight; "
        "1 parameter unexpected: layer9.weight; "
        "1 parameter of another shape: bn1.bias (9,) instead of (8,); "
        "1 parameter of another type: bn1.weight float16 instead of float32; "
        "1 parameter to be new but not in the network: head"
    )


def test_a_long_list_is_shortened(arrays):
    with pytest.raises(InputError, match=r"12 parameters missing: .*, and 4 more$"):
        pretrained.fit("x", {}, variables_of())


def test_stages_that_a_cut_network_lacks_may_be_left_unused(arrays):
    network = Tiny(num_classes=7, cut="conv2")
    image = jnp.zeros((1, 32, 32, 3))
    variables = network.init(jax.random.key(0), image, train=False)
    with pytest.raises(InputError, match=r"unexpected: bn2\.bias"):
        pretrained.fit("x", arrays, variables, new=("fc",))
    loaded = pretrained.fit(
        "x", arrays, variables, new=("fc",), unused=("conv2", "bn2")
    )
    published = pretrained.to_published(loaded)
    np.testing.assert_array_equal(published["conv1.weight"], arrays["conv1.weight"])


def test_counts_of_batches_and_the_auxiliary_head_are_ignored(arrays):
    arrays["bn1.num_batches_tracked"] = np.array(5)
    arrays["AuxLogits.fc.weight"] = np.zeros((1000, 768), np.float32)
    pretrained.fit("x", arrays, variables_of())


@pytest.mark.parametrize("channels", [1, 6])
def test_gray_images_of_any_channels_give_the_logits_of_colors(arrays, channels):
    gray = jax.random.normal(jax.random.key(0), (2, 32, 32, 1))

    def logits(channels):
        variables = pretrained.fit("x", arrays, variables_of(channels=channels))
        image = jnp.tile(gray, channels)
        return np.asarray(Tiny(num_classes=7).apply(variables, image, train=False))

    np.testing.assert_allclose(logits(channels), logits(3), rtol=1e-4, atol=1e-5)


def test_channels_between_are_the_colors_in_turn_scaled(arrays):
    adapted = pretrained.fit("x", arrays, variables_of(channels=5))
    kernel = pretrained.to_published(adapted)["conv1.weight"]
    colors = arrays["conv1.weight"][:, [0, 1, 2, 0, 1]]
    np.testing.assert_allclose(kernel, colors * 3 / 5, rtol=1e-6)


def test_other_convolutions_are_not_adapted(arrays):
    arrays["conv2.weight"] = arrays["conv2.weight"][:, :3]
    with pytest.raises(InputError, match=r"of another shape: conv2.weight"):
        pretrained.fit("x", arrays, variables_of())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>Not found</html>", "found an HTML page"),
        (b"PK\x03\x04 and so on", "found a PyTorch pickle"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j", "found a PyTorch pickle"),
        (b"", "truncated, or not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1", "truncated, or not"),
    ],
    ids=["html", "zip", "pickle", "empty", "pointer"],
)
def test_what_is_not_a_weights_file_is_named(tmp_path, content, message):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        pretrained.load(path, variables_of())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, arrays, length):
    path = tmp_path / "tiny.safetensors"
    pretrained.write(path, arrays)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="truncated"):
        pretrained.load(path, variables_of())


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        pretrained.load(tmp_path / "none.safetensors", variables_of())


def test_half_precision_is_refused_by_its_type(tmp_path, arrays):
    path = tmp_path / "tiny.safetensors"
    half = {name: array.astype(jnp.bfloat16) for name, array in arrays.items()}
    pretrained.write(path, half)
    with pytest.raises(InputError, match=r"12 .* bfloat16 instead of float32"):
        pretrained.load(path, variables_of())
