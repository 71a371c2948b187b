from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiojax.errors import InputError
from audiojax.training import optimizer


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
    ours = optimizer.create(
        recipe(schedule="constant", learning_rate=0.01, weight_decay=0.1), 1, 1
    )
    params = {"kernel": jnp.asarray(weights, jnp.float32)}
    state = ours.init(params)
    for grad in grads:
        updates, state = ours.update(
            {"kernel": jnp.asarray(grad, jnp.float32)}, state, params
        )
        params = optax.apply_updates(params, updates)
    expected = torch_like_adam(weights, grads, rate=0.01, decay=0.1)
    np.testing.assert_allclose(jax.tree.leaves(params)[0], expected, rtol=1e-4)


def test_adamw_decays_kernels_and_nothing_else():
    ours = optimizer.create(
        recipe(name="adamw", schedule="constant", learning_rate=0.5, weight_decay=0.1),
        1,
        1,
    )
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = ours.update(grads, ours.init(params), params)
    bias, kernel = jax.tree.leaves(updates)
    np.testing.assert_allclose(kernel, -0.05 * np.ones((2, 2)), rtol=1e-6)
    np.testing.assert_array_equal(bias, np.zeros(2))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "adem"}, "choose one of adam, adamw, sgd"),
        ({"step_epochs": 0}, "step_epochs is 0; give at least 1"),
        ({"schedule": "linear"}, "choose one of constant, step, cosine"),
        ({"schedule": "cosine", "warmup_epochs": 5.0}, "warmup_epochs is 5.0"),
    ],
)
def test_wrong_settings_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        optimizer.create(recipe(**changes), steps_per_epoch=10, epochs=5)
