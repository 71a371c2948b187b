"""Learning-rate schedule and optimizer."""

from __future__ import annotations

import dataclasses
import functools

import jax
import optax

from audiojax.errors import InputError, check_choice

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "step", "cosine")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: "adam" adds the L2 gradient `weight_decay * w` of every parameter to the
            loss's gradient before Adam's scaling, as PyTorch's Adam and the paper do.
            "adamw" decays kernels apart from that scaling and leaves biases and
            BatchNorm alone (Loshchilov & Hutter 2019). "sgd" has momentum 0.9.
        learning_rate: the largest value.
        weight_decay: strength of the decay.
        schedule: "constant", "step" (times `step_factor` every `step_epochs`), or
            "cosine" (up to the largest value over `warmup_epochs`, then a half cosine
            down to a thousandth of it).
        warmup_epochs: length of the cosine schedule's linear start.
        step_epochs: epochs between two steps of the step schedule.
        step_factor: what a step multiplies the learning rate by.
    """

    name: str
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup_epochs: float
    step_epochs: int
    step_factor: float


def learning_rate(recipe: Recipe, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Update number -> learning rate.

    Raises:
        InputError: for an unknown schedule, steps of no epoch, or a warm-up as long
            as the whole training.
    """
    check_choice("config.optimizer.schedule", recipe.schedule, SCHEDULES)
    peak, total = recipe.learning_rate, epochs * steps_per_epoch
    if recipe.schedule == "constant":
        return optax.constant_schedule(peak)
    if recipe.schedule == "step":
        if recipe.step_epochs < 1:
            raise InputError(
                f"config.optimizer.step_epochs is {recipe.step_epochs}; give at least 1"
            )
        every = recipe.step_epochs * steps_per_epoch
        steps = range(every, total, every)
        factors = dict.fromkeys(steps, recipe.step_factor)
        return optax.piecewise_constant_schedule(peak, factors)
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if warmup >= total:
        raise InputError(
            f"config.optimizer.warmup_epochs is {recipe.warmup_epochs}, but the "
            f"whole training has {epochs} epochs; warm up for fewer"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / 25,
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=total,
        end_value=peak / 1000,
    )


def create(
    recipe: Recipe, steps_per_epoch: int, epochs: int
) -> optax.GradientTransformation:
    """The optimizer that a recipe describes.

    Raises:
        InputError: for an unknown optimizer, or as `learning_rate`.
    """
    check_choice("config.optimizer.name", recipe.name, OPTIMIZERS)
    rate = learning_rate(recipe, steps_per_epoch, epochs)
    decay = recipe.weight_decay
    if recipe.name == "adamw":
        kernels = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
        return optax.adamw(rate, weight_decay=decay, mask=kernels)
    scaled = {"adam": optax.adam(rate), "sgd": optax.sgd(rate, momentum=0.9)}
    return optax.chain(optax.add_decayed_weights(decay), scaled[recipe.name])
