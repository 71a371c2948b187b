import copy
import dataclasses

import jax
import numpy as np
import pytest

from audiojax import activations, comparison, similarity
from audiojax.errors import InputError
from audiojax.training.trainer import Trainer, open_data
from audiojax.workdir import Workdir, as_config
from tests import trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workdir with one run, and what it was trained on."""
    config = trained.make_config()
    config.model.standardize = True
    return trained.train(tmp_path_factory.mktemp("workdir"), config)


@pytest.fixture(scope="module")
def workdir(finished):
    return Workdir(finished.workdir)


@pytest.fixture(scope="module")
def made(workdir):
    """The classifier, variables of two seeds, and images."""
    classifier = workdir.classifier
    shape = (60, *classifier.image_shape)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    seeds = [jax.device_get(classifier.init(jax.random.key(i))) for i in range(2)]
    return classifier, *seeds, images


def test_a_network_is_itself(made):
    classifier, first, _, images = made
    found = comparison.compare(classifier, first, first, images)
    assert found.layers == ("conv1", "conv2")
    np.testing.assert_allclose(np.diagonal(found.cka), 1)
    np.testing.assert_allclose(found.correlation, 1, atol=1e-6)
    np.testing.assert_array_equal(found.change, 0)


def test_a_network_with_its_channels_in_another_order_is_as_good_as_itself(made):
    classifier, first, _, images = made
    order = np.random.default_rng(0).permutation(8)
    other = copy.deepcopy(first)
    params = other["params"]
    params["conv1"]["kernel"] = params["conv1"]["kernel"][..., order]
    params["conv2"]["kernel"] = params["conv2"]["kernel"][:, :, order]
    found = comparison.compare(classifier, first, other, images)
    np.testing.assert_allclose(np.diagonal(found.cka), 1, atol=1e-5)
    np.testing.assert_allclose(found.correlation, 1, atol=1e-5)
    assert found.change.min() > 0.5


@pytest.mark.parametrize("measure", ["svcca", "cca"])
def test_a_comparison_is_the_measures_of_the_features(made, measure):
    classifier, first, second, images = made
    layers = ("conv1.conv1", "conv1", "conv2")
    found = comparison.compare(classifier, first, second, images, layers, measure)
    assert found.layers == layers
    pooled, pixels = (
        [take(classifier, variables, images, layers) for variables in (first, second)]
        for take in (activations.pooled, activations.pixels)
    )
    expected = [
        [similarity.cka(pooled[0][a], pooled[1][b]) for b in layers] for a in layers
    ]
    np.testing.assert_allclose(found.cka, expected, atol=1e-6)
    function = getattr(similarity, measure)
    expected = [function(pixels[0][name], pixels[1][name]) for name in layers]
    np.testing.assert_allclose(found.correlation, expected, atol=1e-6)
    before, after = (v["params"]["conv1"]["kernel"] for v in (first, second))
    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert found.change[0] == pytest.approx(expected)
    # The stage has its BatchNorm too, eight ones and eight zeros.
    expected = np.linalg.norm(after - before) / np.hypot(np.linalg.norm(before), 8**0.5)
    assert found.change[1] == pytest.approx(expected)
    rows = found.rows()
    assert [row["layer"] for row in rows] == list(layers)
    assert rows[2] == {
        "layer": "conv2",
        "cka": found.cka[2, 2],
        "correlation": found.correlation[2],
        "change": found.change[2],
    }


def test_a_comparison_the_other_way_round_is_the_transpose(made):
    classifier, first, second, images = made
    there = comparison.compare(classifier, first, second, images)
    back = comparison.compare(classifier, second, first, images)
    np.testing.assert_allclose(back.cka, there.cka.T, atol=1e-9)
    np.testing.assert_allclose(back.correlation, there.correlation, atol=1e-9)


def test_training_is_a_comparison_with_the_initial_state(finished, workdir):
    """The beginning of a run is a function of its config and seed."""
    (run,) = workdir.runs
    config = as_config(workdir.config)
    trainer = Trainer(config, open_data(config, finished.recordings))
    before = jax.device_get(trainer.initial_state(run).variables)
    after = workdir.variables(run)
    np.testing.assert_allclose(before["input"]["mean"], after["input"]["mean"])
    audio = [finished.recordings.audio(i) for i in range(len(trained.LENGTHS) * 4)]
    rows = np.stack([np.resize(x, trained.ROW) for x in audio])
    images = np.asarray(jax.jit(workdir.classifier.image)(rows))
    found = comparison.compare(workdir.classifier, before, after, images)
    assert found.change.min() > 1e-3
    assert np.diagonal(found.cka).max() < 1 - 1e-5
    assert np.diagonal(found.cka).min() > 0.5


def test_too_few_clips_are_refused_before_anything_is_computed(made):
    classifier, first, second, images = made
    # Of 16 x 16 pixels the first stage keeps 4 x 4, the second 2 x 2.
    comparison.check_images(classifier, 20)
    message = (
        "conv2: 19 clips of 4 pixels are too few for 16 dimensions; give at least 20"
    )
    with pytest.raises(InputError, match=message):
        comparison.check_images(classifier, 19)
    comparison.check_images(classifier, 19, ["conv1"])
    with pytest.raises(InputError, match=message):
        comparison.compare(classifier, first, second, images[:19])


def test_what_cannot_be_measured_is_refused_with_the_layers_name(made):
    classifier, first, second, images = made
    dead = copy.deepcopy(second)
    dead["params"]["bn2"]["bias"] = np.full(16, -1e6, np.float32)
    with pytest.raises(InputError, match="conv2: features that are the same"):
        comparison.compare(classifier, first, dead, images)
    with pytest.raises(InputError, match="'pwcca'; choose one of svcca, cca"):
        comparison.compare(classifier, first, second, images, measure="pwcca")
    with pytest.raises(InputError, match="its stages are: conv1, conv2"):
        comparison.compare(classifier, first, second, images, ["layer1"])


def test_a_heat_map_takes_networks_of_different_forms():
    random = np.random.default_rng(0)
    one = {name: random.normal(size=(50, d)) for name, d in (("a", 3), ("b", 4))}
    other = {"c": one["b"] @ np.linalg.qr(random.normal(size=(4, 4)))[0]}
    found = comparison.heat_map(one, other)
    assert found.shape == (2, 1)
    assert found[1, 0] == pytest.approx(1)
    first, second = ({n: x[:15] for n, x in of.items()} for of in (one, other))
    with pytest.raises(InputError, match="a and c: 15 examples are too few for 4 dim"):
        comparison.heat_map(first, second, similarity.svcca)


def altered(workdir, **fields):
    """The workdir as if it were another one with other fields of its config."""
    other = copy.copy(workdir)
    other.path = workdir.path.parent / "other"
    other.config = copy.deepcopy(workdir.config)
    for name, value in fields.items():
        if name in other.config:
            other.config[name].update(value)
        else:
            setattr(other, name, value)
    return other


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model": {"name": "resnet18", "pretrained": None}},
            "its network is resnet18, that of .* is tiny; compare runs of one network",
        ),
        ({"features": {"n_mels": 24}}, r"its config.features is LogMel\(.*n_mels=24"),
        ({"data": {"clip_seconds": 0.25}}, "its clip policy is "),
        ({"classes": ("hum", "hiss", "roar")}, "classes than .*; it has another order"),
        ({"classes": ("hum", "hiss")}, "it lacks roar; compare runs of the same data"),
    ],
)
def test_workdirs_that_cannot_be_compared_are_refused(workdir, fields, message):
    comparison.check_same(workdir, altered(workdir))
    other = altered(workdir, **fields)
    other.model = other.config["model"]["name"]
    with pytest.raises(InputError, match=message):
        comparison.check_same(workdir, other)


def test_workdirs_of_other_clips_are_refused(workdir, monkeypatch):
    other = altered(workdir)
    data = workdir.data
    fewer = dataclasses.replace(data, clips=data.clips[1:])
    monkeypatch.setattr(
        Workdir, "data", property(lambda self: fewer if self is other else data)
    )
    with pytest.raises(InputError, match=r"other: other clips than .* it lacks "):
        comparison.check_same(workdir, other)
