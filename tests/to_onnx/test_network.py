"""Networks through onnxruntime, against the same ones in JAX."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import traverse_util

from audiojax import models, task
from audiojax.classifier import Classifier
from audiojax.clips import ClipPolicy
from audiojax.errors import InputError
from audiojax.features import LogMel
from tests.tiny import Tiny

ort = pytest.importorskip("onnxruntime", reason="needs the extra `export`")

from audiojax import to_onnx  # noqa: E402

SMALL = LogMel(sample_rate=8000, n_fft=400, n_mels=80, frames=80, window_ms=(25.0,) * 3)
# One a family, its smallest.
FAMILIES = [
    "resnet18",
    "efficientnet_lite0",
    pytest.param("densenet121", marks=pytest.mark.slow),
    pytest.param("inception_v3", marks=pytest.mark.slow),
]
OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in models.MODELS if n != "tiny"]


def classifier(network, log_mel=SMALL, samples=8000, mode="pad", of="single_label"):
    return Classifier(
        network=network,
        log_mel=log_mel,
        classes=tuple("abcdefg"),
        clip_policy=ClipPolicy(mode, samples),
        weights=None,
        task=task.TASKS[of],
    )


def drawn(model, seed=0):
    """Random variables, with BatchNorm as after a training."""
    random = np.random.default_rng(seed)
    scale = {"var": (0.5, 1.5), "scale": (0.8, 1.2), "bias": (-0.1, 0.1)}

    def draw(path, leaf):
        low, high = scale.get(path[-1], (-0.1, 0.1))
        return random.uniform(low, high, leaf.shape).astype(np.float32)

    variables = model.init(jax.random.key(seed))
    flat = traverse_util.flatten_dict(variables["params"])
    params = {p: x if p[-1] == "kernel" else draw(p, x) for p, x in flat.items()}
    flat = traverse_util.flatten_dict(variables["batch_stats"])
    return {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(
            {p: draw(p, flat[p]) for p in flat}
        ),
        "input": {
            "mean": np.array([-3, -2, -4], np.float32),
            "std": np.array([2, 3, 2.5], np.float32),
        },
    }


def compare(model, audio, capfd, batch=7, length=None):
    """Runs both; random networks have logits of any size, so the head is scaled."""
    variables = drawn(model)
    inputs = {"audio": audio} | ({} if length is None else {"length": length})
    parts = [
        {name: array[i : i + batch] for name, array in inputs.items()}
        for i in range(0, len(audio), batch)
    ]

    @jax.jit
    def logits(audio, length=None):
        return model.logits(variables, model.image(audio, length))

    expected = np.concatenate([logits(**part) for part in parts])
    size = expected.std()
    head = variables["params"][model.network.head]
    for name in head:
        head[name] = head[name] / size
    expected = model.task.probabilities(expected / size)
    capfd.readouterr()
    written = to_onnx.model(model, [variables], {})
    session = ort.InferenceSession(written.SerializeToString())
    found = np.concatenate([session.run(None, part)[0] for part in parts])
    (first,) = session.run(None, {name: array[:1] for name, array in inputs.items()})
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(first - expected[:1]).max() < 1e-4
    assert expected.std(axis=0).max() > 1e-3  # clips differ
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def noise(count, samples):
    random = np.random.default_rng(0)
    loudness = 10 ** random.uniform(-3, 0, (count, 1))
    return (loudness * random.normal(size=(count, samples))).astype(np.float32)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_member_of_each_family(name, capfd):
    compare(classifier(models.create(name, 7)), noise(7, 8000), capfd)


@pytest.mark.parametrize("name", OTHERS)
def test_every_network(name, capfd):
    compare(classifier(models.create(name, 7)), noise(3, 8000), capfd, batch=3)


@pytest.mark.slow
def test_inceptions_own_input(capfd):
    network = models.create("inception_v3", 7, transform_input=True)
    compare(classifier(network), noise(2, 8000), capfd, batch=2)


@pytest.mark.parametrize("mode", ["pad", "stretch"])
@pytest.mark.parametrize("of", ["single_label", "multi_label"])
def test_tasks_and_clip_policies(of, mode, capfd):
    length = (
        np.array([8000, 4000, 500, 8000, 1, 7999, 250]) if mode == "stretch" else None
    )
    length = None if length is None else length.astype(np.int32)
    model = classifier(Tiny(7), mode=mode, of=of)
    compare(model, noise(7, 8000), capfd, length=length)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_forty_real_clips(name, esc10_dir, capfd):
    paths = sorted((esc10_dir / "audio").iterdir())[::10][:40]
    audio = np.zeros((40, 5 * 44100), np.float32)
    for row, path in zip(audio, paths, strict=True):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 44100
        row[: len(samples)] = samples[: len(row)]
    model = classifier(models.create(name, 7), LogMel(), audio.shape[1])
    compare(model, audio, capfd, batch=8)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_as_plain_as_can_be(name):
    """Each kernel one convolution, with what normalizes it inside; no slices."""
    model = classifier(models.create(name, 7))
    variables = drawn(model)
    written = to_onnx.model(model, [variables], {})
    count = collections.Counter(node.op_type for node in written.graph.node)
    kernels = [x for x in jax.tree.leaves(variables["params"]) if x.ndim == 4]
    assert count["Conv"] == len(kernels)
    assert count["GlobalAveragePool"] == count["Gemm"] == count["Softmax"] == 1
    assert not {"Slice", "Sub", "BatchNormalization", "DFT", "STFT"} & count.keys()
    if name.startswith("resnet"):
        assert count["Mul"] == 1  # the images, standardized


class Unusual(Tiny):
    """A network with an operator that no family has."""

    def stages(self, conv, norm, drop):
        return [("conv1", [*super().stages(conv, norm, drop)[0][1], jnp.sin])]


def test_an_unknown_operator_is_named():
    model = classifier(Unusual(7))
    with pytest.raises(InputError, match=r"operator sin of .*; add it there, or take"):
        to_onnx.model(model, [drawn(model)], {})


class Clipped(Tiny):
    """Normalized values that are used twice, and clipped and scaled again."""

    def stages(self, conv, norm, drop):
        def twice(image):
            return nn.relu6(image) * 2.0 + image - 1.0

        stages = super().stages(conv, norm, drop)
        first = [layer for layer in stages[0][1] if layer is not nn.relu]
        return [("conv1", [*first, twice, nn.relu]), stages[1]]


def test_values_that_are_used_twice(capfd):
    compare(classifier(Clipped(7)), noise(2, 8000), capfd, batch=2)
