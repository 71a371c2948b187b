from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiojax.errors import InputError
from audiojax.training import optimizer
from tests.tiny import Tiny

NETWORK = Tiny(num_classes=4)


def recipe(**changes) -> optimizer.Recipe:
    fields: dict[str, Any] = {
        "name": "adam",
        "learning_rate": 1e-4,
        "weight_decay": 1e-3,
        "schedule": "step",
        "warmup_epochs": 0.0,
        "step_epochs": 30,
        "step_factor": 0.1,
    }
    return optimizer.Recipe(**(fields | changes))


def create(steps_per_epoch=1, epochs=1, **changes) -> Any:
    plain = {"schedule": "constant", "weight_decay": 0.0}
    made = recipe(**(plain | changes))
    return optimizer.create(made, steps_per_epoch, epochs, NETWORK)


def test_step_schedule_is_the_papers():
    rate = optimizer.learning_rate(recipe(), steps_per_epoch=50, epochs=70)
    rates = [np.asarray(rate(epoch * 50)) for epoch in (0, 29, 30, 59, 60, 69)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(rate(30 * 50 - 1)), 1e-4, rtol=1e-6)


def test_cosine_schedule_warms_up_and_comes_down():
    modern = recipe(learning_rate=1e-3, schedule="cosine", warmup_epochs=3.0)
    rate = optimizer.learning_rate(modern, steps_per_epoch=10, epochs=12)
    halfway = 1e-6 + (1e-3 - 1e-6) / 2
    rates = [np.asarray(rate(step)) for step in (0, 30, 75, 120)]
    np.testing.assert_allclose(rates, [4e-5, 1e-3, halfway, 1e-6], rtol=1e-4)


def torch_like_adam(weights, grads, rate, decay):
    """Adam with the L2 gradient added, after Kingma & Ba 2015, algorithm 1."""
    m = v = np.zeros_like(weights)
    for t, grad in enumerate(grads, start=1):
        grad = grad + decay * weights
        m = 0.9 * m + 0.1 * grad
        v = 0.999 * v + 0.001 * grad**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        weights = weights - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
    return weights


def test_adam_couples_weight_decay_into_the_gradient():
    random = np.random.default_rng(0)
    weights = random.normal(size=(4, 3))
    grads = random.normal(size=(5, 4, 3)) * 1e-3
    ours = create(learning_rate=0.01, weight_decay=0.1)
    params = {"kernel": jnp.asarray(weights, jnp.float32)}
    state = ours.init(params)
    for grad in grads:
        updates, state = ours.update(
            {"kernel": jnp.asarray(grad, jnp.float32)}, state, params
        )
        params = optax.apply_updates(params, updates)
    expected = torch_like_adam(weights, grads, rate=0.01, decay=0.1)
    np.testing.assert_allclose(jax.tree.leaves(params)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("decay", optimizer.DECAYS)
def test_decay_may_spare_biases_and_batch_norm(name, decay):
    """With a gradient of zero, weights of 1 lose rate times decay."""
    ours = create(name=name, decay=decay, learning_rate=0.5, weight_decay=0.1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = ours.update(grads, ours.init(params), params)
    bias, kernel = jax.tree.leaves(updates)
    np.testing.assert_allclose(kernel, -0.05 * np.ones((2, 2)), rtol=1e-6)
    expected = -0.05 * np.ones(2) if decay == "all" else np.zeros(2)
    np.testing.assert_allclose(bias, expected, rtol=1e-6)


def test_gradients_longer_than_the_norm_are_scaled_down_to_it():
    """A gradient of length 5, [3, 4], against norms of 1 and of 10; decay is apart."""
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    grads = {"a": jnp.full(1, 3.0), "b": jnp.full(1, 4.0)}
    for norm, gradient in ((1.0, [0.6, 0.8]), (10.0, [3.0, 4.0])):
        ours = create(name="sgd", learning_rate=0.5, clip_norm=norm, weight_decay=2.0)
        updates, _ = ours.update(grads, ours.init(params), params)
        expected = -0.5 * (np.array(gradient) + 2.0)
        np.testing.assert_allclose(np.ravel(jax.tree.leaves(updates)), expected, 1e-6)


def named(value):
    """A tree of the tiny network's form."""
    layers = {name: {"kernel": value} for name in ("conv1", "conv2", "fc")}
    return layers | {name: {"scale": value} for name in ("bn1", "bn2")}


@pytest.mark.parametrize("frozen", [(), ("conv1", "bn1")])
def test_stages_have_learning_rates_of_their_own(frozen):
    """Two steps of SGD: factors 1/4 and 1/2 to the head, and the head's own."""
    ours = create(name="sgd", learning_rate=0.5, head_factor=10.0, layer_decay=0.5)
    params = {k: v for k, v in named(jnp.ones(2)).items() if k not in frozen}
    state = ours.init(params)
    for _ in range(2):
        updates, state = ours.update(params, state, params)  # a gradient of ones
    factors = {"conv1": 0.25, "bn1": 0.25, "conv2": 0.5, "bn2": 0.5, "fc": 10.0}
    assert updates.keys() == params.keys()
    for name, update in updates.items():
        # The momentum 0.9 makes the second step 1.9 times as long.
        expected = np.full(2, -0.5 * 1.9 * factors[name])
        np.testing.assert_allclose(jax.tree.leaves(update)[0], expected, rtol=1e-6)


def test_decay_apart_from_the_gradient_has_the_stages_rate_too():
    ours = create(name="adamw", learning_rate=0.5, weight_decay=0.1, head_factor=10.0)
    params = named(jnp.ones(2))
    updates, _ = ours.update(named(jnp.zeros(2)), ours.init(params), params)
    for name, update in updates.items():
        expected = np.full(2, -0.5 if name == "fc" else -0.05)
        np.testing.assert_allclose(jax.tree.leaves(update)[0], expected, rtol=1e-6)


def test_the_stages_are_counted_from_the_head():
    found = optimizer.stage_factors(recipe(layer_decay=0.8), NETWORK)
    assert found == {"conv1": pytest.approx(0.64), "conv2": 0.8, "head": 1.0}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "adem"}, "choose one of adam, adamw, sgd"),
        ({"schedule": "step", "step_epochs": 0}, "step_epochs is 0; give at least 1"),
        ({"schedule": "linear"}, "choose one of constant, step, cosine"),
        ({"schedule": "cosine", "warmup_epochs": 5.0}, "warmup_epochs is 5.0"),
        ({"decay": "biases"}, "decay is 'biases'; choose one of all, kernels"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0; give 0 for no clipping, or a larger"),
        ({"head_factor": 0.0}, "head_factor is 0.0; give a factor above 0"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5; give a factor above 0, to 1"),
    ],
)
def test_wrong_settings_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        create(steps_per_epoch=10, epochs=5, **changes)
