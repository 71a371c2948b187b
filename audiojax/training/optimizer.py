"""Learning-rate schedule and optimizer, and their settings."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import optax

from audiojax import models
from audiojax.errors import InputError, check_choice
from audiojax.models import Network

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "step", "cosine")
DECAYS = ("all", "kernels")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: "adam" adds the L2 gradient `weight_decay * w` to the loss's gradient
            before Adam's scaling, as PyTorch's Adam and the paper do. "adamw" decays
            apart from that scaling (Loshchilov & Hutter 2019). "sgd" has momentum 0.9,
            and decays as "adam".
        learning_rate: the largest value.
        weight_decay: strength of the decay.
        schedule: "constant", "step" (times `step_factor` every `step_epochs`), or
            "cosine" (up to the largest value over `warmup_epochs`, then a half cosine
            down to a thousandth of it).
        warmup_epochs: length of the cosine schedule's linear start.
        step_epochs: epochs between two steps of the step schedule.
        step_factor: what a step multiplies the learning rate by.
        decay: what decays: "all" parameters, or "kernels" alone, so that biases and
            BatchNorm are spared (He et al. 2019, arXiv 1812.01187).
        clip_norm: the largest norm of all gradients together, which longer ones are
            scaled down to before anything else (Pascanu et al. 2013, arXiv 1211.5063);
            0 for any.
        head_factor: what the head's learning rate is multiplied by.
        layer_decay: the learning rate of the stage before the head is multiplied by
            it, that of the one before by its square, and so on to the first (Clark et
            al. 2020, ELECTRA, arXiv 2003.10555; for images Bao et al. 2021, BEiT,
            arXiv 2106.08254).
        label_smoothing: how far targets are moved towards knowing nothing, in the
            loss alone, see `Task.smoothed`.
        ema_decay: how much of their old values the averages of parameters and
            statistics keep in an update (Polyak & Juditsky 1992), such as 0.99; they
            then are the model. 0: none are kept.

    Raises:
        InputError: a value is out of its range.
    """

    name: str
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup_epochs: float
    step_epochs: int
    step_factor: float
    decay: str = "all"
    clip_norm: float = 0.0
    head_factor: float = 1.0
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0

    def __post_init__(self):
        check_choice("config.optimizer.decay", self.decay, DECAYS)
        for name, fits, expected in (
            ("ema_decay", 0 <= self.ema_decay < 1, "a share of 0 to below 1"),
            (
                "label_smoothing",
                0 <= self.label_smoothing < 1,
                "a share of 0 to below 1",
            ),
            ("clip_norm", self.clip_norm >= 0, "0 for no clipping, or a larger norm"),
            ("head_factor", self.head_factor > 0, "a factor above 0"),
            ("layer_decay", 0 < self.layer_decay <= 1, "a factor above 0, to 1"),
        ):
            if not fits:
                raise InputError(
                    f"config.optimizer.{name} is {getattr(self, name)}; give {expected}"
                )


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
    recipe: Recipe, steps_per_epoch: int, epochs: int, network: Network
) -> optax.GradientTransformation:
    """The optimizer that a recipe describes, of parameters of the network.

    What is off is no part of it, so that its state has the form that it had before.

    Raises:
        InputError: for an unknown optimizer, or as `learning_rate`.
    """
    check_choice("config.optimizer.name", recipe.name, OPTIMIZERS)
    rate = learning_rate(recipe, steps_per_epoch, epochs)
    decay = recipe.weight_decay
    mask = _is_kernel if recipe.decay == "kernels" else None
    parts = [optax.clip_by_global_norm(recipe.clip_norm)] if recipe.clip_norm else []
    if recipe.name == "adamw":
        parts.append(optax.adamw(rate, weight_decay=decay, mask=mask))
    else:
        scaled = {"adam": optax.adam(rate), "sgd": optax.sgd(rate, momentum=0.9)}
        parts += [optax.add_decayed_weights(decay, mask), scaled[recipe.name]]
    factors = stage_factors(recipe, network)
    if set(factors.values()) != {1.0}:
        parts.append(_scale_stages(factors, network))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


_is_kernel = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)


def stage_factors(recipe: Recipe, network: Network) -> dict[str, float]:
    """What the learning rate of each stage, and of the head, is multiplied by."""
    *stages, head = models.stage_paths(network)
    before = range(len(stages), 0, -1)
    factors = [recipe.layer_decay**distance for distance in before]
    return dict(zip(stages, factors, strict=True)) | {head: recipe.head_factor}


def _scale_stages(
    factors: dict[str, float], network: Network
) -> optax.GradientTransformation:
    """Multiplies the updates of each stage; frozen ones have none.

    It comes last, so that what decays apart from the gradient is multiplied too, as
    in PyTorch, where parameters are grouped by learning rate.
    """

    def scaled(updates: Any, _params: Any) -> Any:
        parts = []
        for name, factor in factors.items():
            part, _ = models.split_params(network, updates, (name,))
            parts.append(jax.tree.map(lambda leaf, by=factor: leaf * by, part))
        return models.merge_params(*parts)

    return optax.stateless(scaled)
