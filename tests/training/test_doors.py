"""What a step may change before it learns, what it learns, and what it leaves."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from audiojax import classifier as classifiers
from audiojax import models, pretrained
from audiojax.augment import Changes
from audiojax.errors import InputError
from audiojax.task import TASKS
from audiojax.training import steps
from tests import tiny

CLASSES = ("a", "b", "c")
SGD, ADAM = optax.sgd(0.1), optax.adam(1e-2)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def config():
    config = tiny.get_config()
    config.model.dropout = 0.0
    return config


def create(config, **model):
    config = config.copy_and_resolve_references()
    config.model.update(model)
    return classifiers.create(config, CLASSES, TASKS["single_label"])


@pytest.fixture(scope="module")
def classifier(config):
    return create(config)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    return {
        "audio": random.normal(0, 0.1, (4, 44100)).astype(np.float32),
        "label": np.array([0, 1, 2, 0], np.int32),
        "mask": np.ones(4, np.float32),
    }


@pytest.fixture(scope="module")
def image_batch(classifier, batch):
    image = np.asarray(jax.jit(classifier.image)(batch["audio"]))
    return {"image": image, "label": batch["label"], "mask": batch["mask"]}


def one_step(classifier, batch, changes=None, optimizer=SGD):
    state = steps.create_state(classifier.init(KEY), optimizer)
    return jax.jit(steps.make_train_step(classifier, optimizer, changes=changes))(
        state, batch, KEY
    )


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_waveforms_are_changed_before_the_log_mel(classifier, batch):
    louder = Changes(waveforms=[(0, lambda _, rows: rows.with_audio(4 * rows.values))])
    _, found = one_step(classifier, batch, louder)
    _, expected = one_step(classifier, {**batch, "audio": 4 * batch["audio"]})
    _, plain = one_step(classifier, batch)
    assert float(found["loss_sum"]) == pytest.approx(float(expected["loss_sum"]), 1e-6)
    assert float(found["loss_sum"]) != pytest.approx(float(plain["loss_sum"]), 1e-6)


def test_images_are_changed_after_it_and_each_row_has_its_key(classifier, image_batch):
    seen = []

    def add_noise(draw, rows):
        shape = rows.values.shape[1:]
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(draw.keys)
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), noise)
        return rows._replace(values=rows.values + noise)

    _, found = one_step(classifier, image_batch, Changes(images=[(0, add_noise)]))
    jax.effects_barrier()
    (noise,) = seen
    by_hand = {**image_batch, "image": image_batch["image"] + noise}
    _, expected = one_step(classifier, by_hand)
    assert float(found["loss_sum"]) == pytest.approx(float(expected["loss_sum"]), 1e-5)
    assert len(np.unique(noise[:, 0, 0, 0])) == 4


def test_16_bit_samples_are_the_same_sounds(classifier, batch):
    samples = np.rint(batch["audio"] * 32768).clip(-32768, 32767).astype(np.int16)
    as_float = {**batch, "audio": samples.astype(np.float32) / 32768}
    found, expected = (
        one_step(classifier, given)[0].params
        for given in ({**batch, "audio": samples}, as_float)
    )
    assert_equal(found, expected)


def test_rows_that_are_not_to_be_changed_are_left_as_they_are(classifier, batch):
    louder = Changes(waveforms=[(0, lambda _, rows: rows.with_audio(4 * rows.values))])
    blank = Changes(images=[(0, lambda _, rows: rows._replace(values=0 * rows.values))])
    changed = np.array([True, False, True, False])
    louder_by_hand = np.where(changed[:, None], 4 * batch["audio"], batch["audio"])
    _, found = one_step(classifier, {**batch, "changed": changed}, louder)
    _, expected = one_step(classifier, {**batch, "audio": louder_by_hand})
    assert float(found["loss_sum"]) == pytest.approx(float(expected["loss_sum"]), 1e-6)
    image = np.asarray(jax.jit(classifier.image)(batch["audio"]))
    image = np.where(changed[:, None, None, None], 0 * image, image)
    rest = {name: batch[name] for name in ("label", "mask")}
    _, found = one_step(classifier, {**batch, "changed": changed}, blank)
    _, expected = one_step(classifier, {"image": image, **rest})
    assert float(found["loss_sum"]) == pytest.approx(float(expected["loss_sum"]), 1e-5)


def test_a_stretched_clip_takes_its_length_through_the_changes(config, batch):
    """Half of a row is cut away, and the image is of the other half alone."""
    stretching = config.copy_and_resolve_references()
    stretching.data.clip_mode = "stretch"
    classifier = create(stretching)
    size = batch["audio"].shape[1]
    whole = {**batch, "length": np.full(4, size, np.int32)}

    def halve(_, rows):
        audio = rows.values.at[:, size // 2 :].set(0)
        return rows.with_audio(audio, rows.length // 2)

    _, found = one_step(classifier, whole, Changes(waveforms=[(0, halve)]))
    half = np.where(np.arange(size)[None] < size // 2, batch["audio"], 0)
    by_hand = {**batch, "audio": half, "length": np.full(4, size // 2, np.int32)}
    _, expected = one_step(classifier, by_hand)
    assert float(found["loss_sum"]) == pytest.approx(float(expected["loss_sum"]), 1e-6)


@pytest.mark.parametrize("door", ["waveforms", "images"])
def test_soft_labels_are_cross_entropy(classifier, batch, image_batch, door):
    """Either change may mix labels: the loss is NumPy's, of the mixed shares."""

    def mix(_, rows):
        return rows._replace(targets=0.75 * rows.targets + 0.25 * rows.targets[::-1])

    given = batch if door == "waveforms" else image_batch
    _, found = one_step(classifier, given, Changes(**{door: [(0, mix)]}))
    variables = classifier.init(KEY)
    logits, _ = classifier.logits(variables, image_batch["image"], train=True)
    hard = np.eye(3)[batch["label"]]
    shares = 0.75 * hard + 0.25 * hard[::-1]
    logs = special.log_softmax(np.asarray(logits, np.float64), axis=1)
    assert float(found["loss_sum"]) == pytest.approx(-(shares * logs).sum(), rel=1e-4)


def freeze(config, batch, **model):
    """States before and after three steps, with the first stage frozen."""
    frozen = create(config, freeze="conv1", **model)
    trained = models.stages_from(frozen.network, "conv2")
    variables = frozen.init(KEY)
    part, _ = models.split_params(frozen.network, variables["params"], trained)
    before = steps.create_state(variables, ADAM, trained=part)
    step = jax.jit(steps.make_train_step(frozen, ADAM, trainable=trained))
    after = before
    for _ in range(3):
        after, _ = step(after, batch, KEY)
    return before, after, step


def test_frozen_stages_keep_every_bit_and_take_no_memory(config, image_batch):
    before, after, _ = freeze(config, image_batch)
    for name in ("conv1", "bn1"):
        assert_equal(after.params[name], before.params[name])
    assert_equal(after.batch_stats["bn1"], before.batch_stats["bn1"])
    for name in ("conv2", "bn2", "fc"):
        for old, new in zip(
            jax.tree.leaves(before.params[name]),
            jax.tree.leaves(after.params[name]),
            strict=True,
        ):
            assert np.any(old != new), name
    assert np.any(before.batch_stats["bn2"]["mean"] != after.batch_stats["bn2"]["mean"])
    whole = sum(x.size for x in jax.tree.leaves(before.params))
    first = 3 * 3 * 3 * 8 + 2 * 8  # the kernel and BatchNorm of conv1
    moments = [x.size for x in jax.tree.leaves(after.opt_state) if x.ndim]
    assert sum(moments) == 2 * (whole - first)


def test_frozen_batch_norm_may_go_on_updating(config, image_batch):
    before, after, _ = freeze(config, image_batch, update_batch_norm=True)
    assert_equal(after.params["bn1"], before.params["bn1"])
    assert np.any(before.batch_stats["bn1"]["mean"] != after.batch_stats["bn1"]["mean"])


def test_gradients_of_frozen_stages_are_not_computed(config, classifier, image_batch):
    def flops(step, state):
        return step.lower(state, image_batch, KEY).compile().cost_analysis()["flops"]

    state, _, step = freeze(config, image_batch)
    whole = steps.create_state(classifier.init(KEY), ADAM)
    full = flops(jax.jit(steps.make_train_step(classifier, ADAM)), whole)
    # The gradient of a convolution's kernel costs as much as the convolution.
    channels, kernel, (_, height, width, _) = 8, 27, image_batch["image"].shape
    pixels = len(image_batch["image"]) * (height // 4) * (width // 4)
    assert full - flops(step, state) > pixels * channels * kernel


@pytest.fixture(scope="module")
def weights(config, classifier, tmp_path_factory):
    """A file of weights other than those that any key of these tests gives."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    values = classifier.init(jax.random.key(99))
    named = {name: values[name] for name in ("params", "batch_stats")}
    named = jax.tree.map(lambda leaf: leaf + 0.5, named)
    pretrained.save(path, named)
    return str(path), named


def test_nothing_drawn_anew_is_pretrained_and_everything_is_random(config, weights):
    path, values = weights
    loaded = create(config, pretrained=path).init(KEY)
    random = create(config, pretrained=None).init(KEY)
    anew = create(config, pretrained=path, reinitialize="conv1").init(KEY)
    assert_equal(loaded["params"]["conv2"], values["params"]["conv2"])
    assert_equal(loaded["batch_stats"], values["batch_stats"])
    assert_equal(loaded["params"]["fc"], random["params"]["fc"])
    assert_equal(anew, random)


@pytest.mark.parametrize("keep", [False, True])
def test_later_stages_are_drawn_anew(config, weights, keep):
    path, values = weights
    found = create(
        config, pretrained=path, reinitialize="conv2", keep_batch_norm=keep
    ).init(KEY)
    random = create(config, pretrained=None).init(KEY)
    source = values if keep else random
    for part in ("conv1", "bn1"):
        assert_equal(found["params"][part], values["params"][part])
    assert_equal(found["params"]["conv2"], random["params"]["conv2"])
    assert_equal(found["params"]["bn2"], source["params"]["bn2"])
    assert_equal(found["batch_stats"]["bn2"], source["batch_stats"]["bn2"])


def test_convolutions_are_drawn_by_fan_out_if_asked(config, weights):
    """He et al. 2015: variance 2 over a kernel's taps times its outputs."""
    path, values = weights
    model = {"reinitialize": "conv2", "keep_batch_norm": True, "he_fan_out": True}
    kernels = [
        create(config, pretrained=path, **model).init(jax.random.key(seed))["params"]
        for seed in range(8)
    ]
    drawn = np.stack([params["conv2"]["kernel"] for params in kernels])
    assert np.std(drawn) == pytest.approx(np.sqrt(2 / (3 * 3 * 16)), rel=0.03)
    assert_equal(kernels[0]["conv1"], values["params"]["conv1"])
    assert_equal(kernels[0]["bn2"], values["params"]["bn2"])


def test_a_cut_network_has_the_weights_of_the_stages_that_are_left(config, weights):
    path, values = weights
    cut = create(config, pretrained=path, cut="conv2")
    found = cut.init(KEY)
    assert set(found["params"]) == {"conv1", "bn1", "fc"}
    for name in ("conv1", "bn1"):
        assert_equal(found["params"][name], values["params"][name])
    assert_equal(found["batch_stats"]["bn1"], values["batch_stats"]["bn1"])
    assert found["params"]["fc"]["kernel"].shape == (8, 3)


def test_what_no_stage_has_is_refused_of_a_cut_network_too(config, weights, tmp_path):
    _, values = weights
    path = tmp_path / "tiny.safetensors"
    more = pretrained.to_published(values) | {"conv3.weight": np.zeros(1, np.float32)}
    pretrained.write(path, more)
    with pytest.raises(InputError, match=r"1 parameter unexpected: conv3\.weight$"):
        create(config, pretrained=str(path), cut="conv2").init(KEY)


def test_frozen_to_the_head_is_a_linear_probe_by_the_same_optimizer(
    config, image_batch
):
    """What trains is a linear layer on features that do not change."""
    frozen = create(config, freeze="conv2")
    variables = frozen.init(KEY)
    trained, _ = models.split_params(frozen.network, variables["params"], ["head"])
    state = steps.create_state(variables, ADAM, trained=trained)
    step = jax.jit(steps.make_train_step(frozen, ADAM, trainable=["head"]))
    _, features = frozen.outputs(variables, image_batch["image"])

    def loss(fc):
        logits = features @ fc["kernel"] + fc["bias"][None]
        picked = optax.softmax_cross_entropy_with_integer_labels
        return picked(logits, image_batch["label"]).mean()

    fc: Any = variables["params"]["fc"]
    of_probe = ADAM.init(fc)
    for _ in range(20):
        state, _ = step(state, image_batch, KEY)
        updates, of_probe = ADAM.update(jax.grad(loss)(fc), of_probe)
        fc = optax.apply_updates(fc, updates)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(state.params["fc"][name], fc[name], atol=1e-4)
    assert np.any(np.abs(fc["kernel"] - variables["params"]["fc"]["kernel"]) > 0.1)
    assert_equal(state.batch_stats, variables["batch_stats"])


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"cut": "layer9"}, "no stage 'layer9'; its stages are: conv1, conv2"),
        ({"cut": "conv1"}, "first stage 'conv1' has none left; choose one of conv2"),
        ({"freeze": "layer9"}, "no stage 'layer9'; its stages are: conv1, conv2"),
        ({"freeze": "head"}, "leaves nothing to train; choose one of conv1, conv2"),
        ({"reinitialize": "layer9"}, "no stage 'layer9'; its stages are: conv1, conv2"),
    ],
)
def test_wrong_stages_are_named(config, model, sentence):
    with pytest.raises(InputError, match=sentence):
        create(config, **model)


def test_the_same_step_without_doors_is_the_old_one(classifier, image_batch):
    """No change, and all stages named, is what a plain step computes."""
    state = steps.create_state(classifier.init(KEY), SGD)
    every = tuple(models.stage_paths(classifier.network))
    step = steps.make_train_step(classifier, SGD, changes=Changes(), trainable=every)
    found, _ = jax.jit(step)(state, image_batch, KEY)
    expected, _ = one_step(classifier, image_batch)
    assert_equal(found.params, expected.params)
    assert jnp.isfinite(found.params["fc"]["bias"]).all()
    assert dataclasses.is_dataclass(found)
