import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from sklearn import metrics

from audiojax import augment
from audiojax.augment import Augment
from audiojax.classifier import Classifier
from audiojax.clips import ClipPolicy
from audiojax.features import LogMel
from audiojax.models.layers import Dropout
from audiojax.task import TASKS
from audiojax.training import steps
from tests.tiny import Tiny

SHAPE = (16, 20, 3)


def make_classifier(axis_name=None, dropout=0.0, task="single_label") -> Classifier:
    return Classifier(
        network=Tiny(num_classes=4, axis_name=axis_name, dropout=dropout),
        log_mel=LogMel(n_mels=SHAPE[0], frames=SHAPE[1]),
        classes=("a", "b", "c", "d"),
        clip_policy=ClipPolicy("pad", 100),
        weights=None,
        task=TASKS[task],
    )


def make_batch(size=16, counted=None, seed=0):
    random = np.random.default_rng(seed)
    mask = np.zeros(size, np.float32)
    mask[: size if counted is None else counted] = 1
    return {
        "image": random.normal(size=(size, *SHAPE)).astype(np.float32),
        "label": random.integers(4, size=size).astype(np.int32),
        "mask": mask,
    }


@functools.cache
def fresh_variables():
    return jax.device_get(make_classifier().init(jax.random.key(0)))


def fresh_state(optimizer):
    return steps.create_state(fresh_variables(), optimizer)


# Optimizers compare by identity, so each of these is compiled once for all tests.
SGD, ADAM = optax.sgd(1.0), optax.adam(1e-3)


@functools.cache
def one_device(optimizer):
    return jax.jit(steps.make_train_step(make_classifier(), optimizer))


@functools.cache
def eight_devices(optimizer):
    step = steps.make_train_step(make_classifier(steps.AXIS), optimizer, steps.AXIS)
    return steps.data_parallel(step)


def largest_difference(a, b):
    """Largest difference of a tree's arrays, each relative to its largest value."""
    differences = jax.tree.map(
        lambda x, y: np.max(np.abs(x * 1.0 - y)) / (np.max(np.abs(y)) + 1e-12),
        jax.device_get(a),
        jax.device_get(b),
    )
    return max(jax.tree.leaves(differences))


def test_sgd_step_is_the_gradient_of_the_masked_mean_loss():
    """Against finite differences of the loss, computed without the step."""
    classifier, optimizer = make_classifier(), SGD
    state, batch = fresh_state(optimizer), make_batch(8, counted=5)
    new, metrics = one_device(optimizer)(state, batch, jax.random.key(1))

    def loss(bias):
        params = {**state.params, "fc": {**state.params["fc"], "bias": bias}}
        logits, _ = classifier.logits(
            {**state.variables, "params": params}, batch["image"], train=True
        )
        logits = np.asarray(logits, np.float64)[:5]
        log_sum = np.log(np.exp(logits).sum(axis=1))
        return np.mean(log_sum - logits[np.arange(5), batch["label"][:5]])

    bias = np.asarray(state.params["fc"]["bias"])
    for i in range(4):
        nudge = np.eye(4, dtype=np.float32)[i] * 1e-2
        slope = (loss(bias + nudge) - loss(bias - nudge)) / 2e-2
        step = bias[i] - float(new.params["fc"]["bias"][i])
        assert step == pytest.approx(slope, rel=1e-2, abs=1e-5)
    assert float(metrics["loss_sum"]) == pytest.approx(5 * loss(bias), rel=1e-5)
    assert float(metrics["count"]) == 5
    assert int(new.step) == 1


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    optimizer = ADAM
    state, step = fresh_state(optimizer), one_device(optimizer)
    bad = make_batch()
    bad["image"][3, 0, 0, 0] = np.nan
    after, metrics = step(state, bad, jax.random.key(0))
    assert not metrics["finite"]
    assert (int(after.skipped), int(after.skipped_in_a_row)) == (1, 1)
    for name in ("params", "batch_stats", "opt_state"):
        assert largest_difference(getattr(after, name), getattr(state, name)) == 0
    after, metrics = step(after, make_batch(), jax.random.key(0))
    assert metrics["finite"]
    assert (int(after.skipped), int(after.skipped_in_a_row)) == (1, 0)
    assert int(after.step) == 2


@pytest.mark.parametrize("counted", [16, 5])
def test_eight_devices_do_what_one_does(counted):
    """Also where the mask leaves some devices without a counted clip."""
    optimizer = SGD
    batch, key = make_batch(16, counted), jax.random.key(0)
    one, one_metrics = one_device(optimizer)(fresh_state(optimizer), batch, key)
    many, many_metrics = eight_devices(optimizer)(
        fresh_state(optimizer), steps.shard(batch, 8), key
    )
    # With a rate of 1 the parameters differ from the first ones by the gradient.
    first = fresh_state(optimizer).params
    gradient = jax.tree.map(jnp.subtract, first, one.params)
    gradients = jax.tree.map(lambda a, b: a - np.asarray(b), first, many.params)
    assert largest_difference(gradients, gradient) < 1e-5
    assert largest_difference(many.batch_stats, one.batch_stats) < 1e-5
    assert largest_difference(many_metrics, one_metrics) < 1e-5


@pytest.mark.parametrize(
    ("optimizer", "tolerance"),
    # Adam divides by the root of the squared gradient: where that is near zero,
    # rounding alone decides the direction, and a step has the size of the rate.
    [(optax.sgd(0.1, momentum=0.9), 1e-4), (ADAM, 1e-3)],
)
def test_ten_steps_on_eight_devices_stay_with_one(optimizer, tolerance):
    one, many = fresh_state(optimizer), fresh_state(optimizer)
    step, steps_on_many = one_device(optimizer), eight_devices(optimizer)
    key = jax.random.key(0)
    for seed in range(10):
        batch = make_batch(seed=seed)
        one, _ = step(one, batch, key)
        many, _ = steps_on_many(many, steps.shard(batch, 8), key)
    assert largest_difference(many.params, one.params) < tolerance


def test_seeds_side_by_side_are_what_each_gives_alone():
    optimizer = optax.adam(1e-3)
    step = steps.make_train_step(make_classifier(dropout=0.5), optimizer)
    alone = jax.jit(step)
    keys = [jax.random.key(seed) for seed in range(8)]
    states = [fresh_state(optimizer) for _ in keys]
    batches = [make_batch(seed=seed) for seed in range(8)]

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    together, _ = steps.seed_parallel(step)(
        stack(states), stack(batches), jnp.stack(keys)
    )
    for i in range(8):
        expected, _ = alone(states[i], batches[i], keys[i])
        found = jax.tree.map(lambda x, i=i: np.asarray(x)[i], together)
        assert largest_difference(found.params, expected.params) < 1e-6


def test_seeds_side_by_side_never_speak():
    optimizer = optax.adam(1e-3)
    step = steps.make_train_step(make_classifier(), optimizer)

    def stack(tree):
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), tree)

    lowered = steps.seed_parallel(step).lower(
        stack(fresh_state(optimizer)),
        stack(make_batch()),
        jnp.stack([jax.random.key(0)] * 8),
    )
    compiled = lowered.compile().as_text()
    for collective in ("all-reduce", "all-gather", "collective-permute", "all-to-all"):
        assert collective not in compiled


def test_dropout_and_augmentation_know_nothing_of_devices():
    """Equal clips get masks of their own, the same on one device and on eight."""
    optimizer = optax.sgd(1.0)
    changes = augment.changes(Augment(shift=1.0, time_mask=0.3, mel_mask=0.3))
    one_clip = make_batch(1)
    batch = {name: np.repeat(value, 16, axis=0) for name, value in one_clip.items()}
    found = []
    for count in (1, 8):
        step = steps.data_parallel(
            steps.make_train_step(
                make_classifier(steps.AXIS, dropout=0.5),
                optimizer,
                steps.AXIS,
                changes,
            ),
            jax.devices()[:count],
        )
        state, key = fresh_state(optimizer), jax.random.key(0)
        losses = []
        for _ in range(2):
            state, metrics = step(state, steps.shard(batch, count), key)
            losses.append(float(metrics["loss_sum"]))
        found.append((losses, jax.device_get(state.params)))
    (one_losses, one), (many_losses, many) = found
    assert many_losses == pytest.approx(one_losses, rel=1e-5)
    assert largest_difference(many, one) < 1e-4


@pytest.mark.parametrize("axis_name", [None, steps.AXIS])
def test_dropout_draws_for_every_row_apart(axis_name):
    dropout = Dropout(0.25, axis_name)

    def apply(features):
        rngs = {"dropout": jax.random.key(0)}
        return dropout.apply({}, features, train=True, rngs=rngs)

    if axis_name is None:
        found = np.asarray(jax.jit(apply)(jnp.ones((64, 100))))
    else:
        found = np.asarray(jax.pmap(apply, axis_name)(jnp.ones((8, 8, 100))))
        found = found.reshape(64, 100)
    assert len({row.tobytes() for row in found}) == 64
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.75], rtol=1e-6)
    # Five standard deviations of a share of 6400 draws.
    assert np.mean(found == 0) == pytest.approx(0.25, abs=5 * 0.0055)


def test_eval_step_averages_over_shifts():
    classifier = dataclasses.replace(make_classifier(), test_shifts=4)
    variables, batch = fresh_variables(), make_batch()
    found = jax.jit(steps.make_eval_step(classifier))(variables, batch)
    logits = [
        classifier.logits(variables, np.roll(batch["image"], 5 * i, axis=2))
        for i in range(4)
    ]
    np.testing.assert_allclose(found, np.mean(logits, axis=0), atol=1e-5)


def test_training_in_bfloat16_keeps_its_state_in_float32():
    classifier = make_classifier()
    network = classifier.network.clone(dtype=jnp.bfloat16)
    classifier = dataclasses.replace(classifier, network=network)
    optimizer = optax.adam(1e-2)
    step = jax.jit(steps.make_train_step(classifier, optimizer))
    state, batch = fresh_state(optimizer), make_batch()
    types = jax.tree.map(lambda leaf: leaf.dtype, state)
    losses = []
    for _ in range(20):
        state, metrics = step(state, batch, jax.random.key(0))
        losses.append(float(metrics["loss_sum"]))
    assert losses[-1] < losses[0] / 2
    assert jax.tree.map(lambda leaf: leaf.dtype, state) == types
    assert {str(kind) for kind in jax.tree.leaves(types)} == {"float32", "int32"}
    logits = steps.make_eval_step(classifier)(state.variables, batch)
    assert logits.dtype == jnp.float32


def test_eval_step_over_devices_keeps_the_order():
    classifier = make_classifier()
    variables, batch = fresh_variables(), make_batch()
    step = steps.make_eval_step(classifier)
    together = steps.data_parallel_eval(step)(variables, steps.shard(batch, 8))
    assert together.shape == (8, 2, 4)
    alone = np.asarray(step(variables, batch))
    np.testing.assert_allclose(np.asarray(together).reshape(16, 4), alone, atol=1e-6)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="reshape"):
        steps.shard(make_batch(10), 4)


def test_several_classes_a_clip_train_on_the_mean_binary_cross_entropy():
    """Against scikit-learn, clip by clip, and the gradient of the head's bias."""
    state, batch = fresh_state(SGD), make_batch(8, counted=5)
    label = np.random.default_rng(1).integers(0, 2, (8, 4)).astype(np.float32)
    batch["label"] = label
    classifier = make_classifier(task="multi_label")
    step = jax.jit(steps.make_train_step(classifier, SGD))
    new, found = step(state, batch, jax.random.key(1))
    logits, _ = classifier.logits(state.variables, batch["image"], train=True)
    chances = 1 / (1 + np.exp(-np.asarray(logits, np.float64)[:5]))
    loss = metrics.log_loss(label[:5].ravel(), chances.ravel())
    assert float(found["loss_sum"]) == pytest.approx(5 * loss, rel=1e-5)
    right = np.mean((chances > 0.5) == (label[:5] > 0.5))
    assert float(found["correct"]) == pytest.approx(5 * right, rel=1e-5)
    gradient = (chances - label[:5]).mean(axis=0) / 4
    moved = np.asarray(state.params["fc"]["bias"]) - np.asarray(
        new.params["fc"]["bias"]
    )
    np.testing.assert_allclose(moved, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
def test_weights_make_a_clip_count_as_so_many(devices):
    """A clip of weight 3 moves the head as three of weight 1, of four in all."""
    batch = make_batch(16)
    weight = np.ones(16, np.float32)
    weight[3] = 3.0
    step = one_device(SGD) if devices == 1 else eight_devices(SGD)
    weighted = {**batch, "weight": weight}
    if devices == 8:
        weighted = steps.shard(weighted, 8)
    new, found = step(fresh_state(SGD), weighted, jax.random.key(0))
    classifier, variables = make_classifier(), fresh_variables()
    logits, _ = classifier.logits(variables, batch["image"], train=True)
    logits = np.asarray(logits, np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = np.average(shares - np.eye(4)[batch["label"]], axis=0, weights=weight)
    first = np.asarray(variables["params"]["fc"]["bias"])
    moved = first - np.asarray(new.params["fc"]["bias"])
    np.testing.assert_allclose(moved, gradient, rtol=1e-3, atol=1e-6)
    loss = metrics.log_loss(batch["label"], shares, labels=range(4), normalize=False)
    assert float(found["loss_sum"]) == pytest.approx(loss, rel=1e-5)
    assert float(found["count"]) == 16


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_smoothed_labels_are_in_the_loss_alone(task):
    """The loss is NumPy's of smoothed targets; what is right is as without."""
    state, batch = fresh_state(SGD), make_batch(8, counted=5)
    hot = np.eye(4, dtype=np.float32)[batch["label"]]
    smooth = 0.9 * hot + (0.1 / 4 if task == "single_label" else 0.1 / 2)
    batch["label"] = batch["label"] if task == "single_label" else hot
    classifier = make_classifier(task=task)
    step = steps.make_train_step(classifier, SGD, label_smoothing=0.1)
    plain = steps.make_train_step(classifier, SGD)
    _, found = jax.jit(step)(state, batch, jax.random.key(1))
    _, without = jax.jit(plain)(state, batch, jax.random.key(1))
    logits, _ = classifier.logits(state.variables, batch["image"], train=True)
    logits = np.asarray(logits, np.float64)
    if task == "single_label":
        losses = -(smooth * special.log_softmax(logits, axis=1)).sum(axis=1)
    else:
        losses = (np.logaddexp(0, logits) - smooth * logits).mean(axis=1)
    assert float(found["loss_sum"]) == pytest.approx(losses[:5].sum(), rel=1e-5)
    assert float(found["correct"]) == float(without["correct"])


def test_averages_are_numpys_and_leave_out_what_is_not_finite():
    """Of parameters and statistics, by min(0.3, (1 + n) / (10 + n)): 0.1, 2/11, 1/4."""
    step = jax.jit(steps.make_train_step(make_classifier(), ADAM, ema_decay=0.3))
    state = steps.create_state(fresh_variables(), ADAM, average=True)
    first = state.variables
    bad = make_batch()
    bad["image"][0] = np.nan
    expected = {name: jax.device_get(first[name]) for name in steps.AVERAGED}
    for number, kept in enumerate((0.1, 2 / 11, 1 / 4, 0.3, 0.3)):
        skipped, _ = step(state, bad, jax.random.key(0))
        assert largest_difference(skipped.ema, state.ema) == 0
        state, _ = step(skipped, make_batch(seed=number), jax.random.key(0))
        new = {name: getattr(state, name) for name in steps.AVERAGED}
        expected = jax.tree.map(
            lambda old, now, kept=kept: kept * old + (1 - kept) * np.asarray(now),
            *(expected, new),
        )
    assert largest_difference(state.ema, expected) < 1e-6
    assert state.model_variables == {**state.ema, "input": state.input}
    assert largest_difference(state.variables["params"], expected["params"]) > 1e-4


def test_the_best_is_the_average_where_that_is_the_model():
    state = steps.create_state(
        fresh_variables(), SGD, pick_best=True, average=True
    ).replace(ema={"params": {"a": jnp.ones(2)}, "batch_stats": {}})
    state = state.replace(best=jax.tree.map(jnp.zeros_like, state.model_variables))
    for better in (False, True):
        best = steps.keep_best(state, jnp.array(better)).best
        assert best.keys() == state.model_variables.keys()
        np.testing.assert_array_equal(best["params"]["a"], np.full(2, float(better)))


def accumulated(batch, count, devices=1, **options):
    """A step of SGD with rate 1 from the first state, in so many parts."""
    classifier = make_classifier(steps.AXIS, **options)
    step = steps.make_train_step(classifier, SGD, steps.AXIS, accumulate=count)
    mapped = steps.data_parallel(step, jax.devices()[:devices])
    return mapped(fresh_state(SGD), steps.shard(batch, devices), jax.random.key(0))


def weighted_batch(counted=29):
    """Rows that count unequally, and some that do not count."""
    weight = np.random.default_rng(5).uniform(0.5, 2, 32).astype(np.float32)
    return {**make_batch(32, counted), "weight": weight}


def gradients(state):
    return jax.tree.map(
        lambda a, b: a - np.asarray(b), *(fresh_variables()["params"], state.params)
    )


def test_gradients_of_four_parts_are_those_of_the_whole_batch():
    """With BatchNorm fixed, which else normalizes each part by itself."""
    fixed = make_classifier()
    network = fixed.network.clone(fixed_batch_norm=("conv1", "conv2"))
    found = {}
    for count in (1, 4):
        step = steps.make_train_step(
            dataclasses.replace(fixed, network=network), SGD, accumulate=count
        )
        state, metrics = jax.jit(step)(
            fresh_state(SGD), weighted_batch(), jax.random.key(0)
        )
        found[count] = gradients(state), metrics
    assert largest_difference(found[4], found[1]) < 1e-5
    assert float(found[4][1]["count"]) == 29


def test_accumulation_is_numpys_sum_of_parts():
    """The head's bias, and the running means after four steps of BatchNorm's own."""
    batch, variables = weighted_batch(), fresh_variables()
    state, _ = accumulated(batch, 4)
    weight, gradient = batch["mask"] * batch["weight"], np.zeros(4)
    for i in range(4):
        logits, moved = make_classifier().logits(
            variables, batch["image"][i::4], train=True
        )
        variables = {**variables, "batch_stats": moved}
        shares = special.softmax(np.asarray(logits, np.float64), axis=1)
        wrong = shares - np.eye(4)[batch["label"][i::4]]
        gradient += (weight[i::4, None] * wrong).sum(axis=0) / weight.sum()
    found = gradients(state)["fc"]["bias"]
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)
    assert largest_difference(state.batch_stats, variables["batch_stats"]) < 1e-5


def test_accumulation_knows_nothing_of_devices():
    """Nor does dropout, nor BatchNorm, for parts have the same rows everywhere."""
    batch = weighted_batch()
    one, one_metrics = accumulated(batch, 4, dropout=0.5)
    many, many_metrics = accumulated(batch, 4, devices=8, dropout=0.5)
    assert largest_difference(gradients(many), gradients(one)) < 1e-5
    assert largest_difference(many.batch_stats, one.batch_stats) < 1e-5
    assert largest_difference(many_metrics, one_metrics) < 1e-5
    other, _ = accumulated(batch, 4, dropout=0.0)
    assert largest_difference(gradients(other), gradients(one)) > 1e-2
