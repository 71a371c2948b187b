"""One training step, one evaluation step, and how they are spread over devices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax

from audiojax import models
from audiojax.augment import Changes
from audiojax.classifier import Classifier, Variables
from audiojax.errors import InputError
from audiojax.models.layers import row_keys

AXIS = "batch"
VARIABLES = ("params", "batch_stats", "input")

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """Everything that training changes, and all that a checkpoint holds.

    Attributes:
        step: number of batches seen.
        params: the network's parameters.
        batch_stats: BatchNorm's running statistics.
        input: mean and standard deviation [C] of the training clips' images.
        opt_state: the optimizer's state, of the parameters that train.
        best: a copy of `variables` as they were after the best epoch, None where no
            epoch is picked.
        skipped: number of updates left out because a value was not finite.
        skipped_in_a_row: the same, since the last update that was made.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    input: Any
    opt_state: optax.OptState
    skipped: jax.Array
    skipped_in_a_row: jax.Array
    best: Any = None

    @property
    def variables(self) -> Variables:
        """What `Classifier.logits` takes."""
        return {name: getattr(self, name) for name in VARIABLES}


def create_state(
    variables: Variables,
    optimizer: optax.GradientTransformation,
    *,
    trained: Any = None,
    pick_best: bool = False,
) -> TrainState:
    """The state before the first step, with room for the best epoch where it is picked.

    What trains is the part of the parameters that `models.split_params` gives, or all.
    """
    # One zero a field: a donated buffer may not be given twice.
    step, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))
    return TrainState(
        **{name: variables[name] for name in VARIABLES},
        step=step,
        opt_state=optimizer.init(variables["params"] if trained is None else trained),
        skipped=skipped,
        skipped_in_a_row=in_a_row,
        best=jax.tree.map(jnp.copy, variables) if pick_best else None,
    )


@jax.jit
def keep_best(state: TrainState, better: jax.Array) -> TrainState:
    """Copies the variables to `best` where `better` is true.

    It is a bool [], or [D] for several states with a leading axis.
    """

    def pick(new, old):
        chosen = better.reshape(better.shape + (1,) * (new.ndim - better.ndim))
        return jnp.where(chosen, new, old)

    return state.replace(best=jax.tree.map(pick, state.variables, state.best))


def make_train_step(
    classifier: Classifier,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
    augment: Changes | None = None,
    trainable: Collection[str] | None = None,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """The training step as a pure function of state, batch and key.

    The loss is that of the task, averaged over the clips whose mask is 1, on all
    devices together, by their weights if they have some. An update with a value that
    is not finite is left out and counted; the batch counts as seen.

    Args:
        classifier: what is trained; its network must synchronize BatchNorm over
            `axis_name` if several devices share a batch.
        optimizer: what turns gradients into updates.
        axis_name: the mapped axis to sum over, None on one device.
        augment: what changes waveforms, images and targets, None for nothing.
        trainable: names of the stages whose parameters train, None for all. There are
            no gradients of the others, and `create_state` must be given the same part.

    Returns:
        `train_step(state, batch, key) -> state, metrics`. The batch holds `image`
        [B, mel, frames, C] or `audio` [B, T], `label` [B] or [B, classes], `mask` [B]
        and, if clips count unequally, `weight` [B]. The same key may be given at every
        step; the step's number is folded into it, and the row's for what differs by
        clip, so devices do not matter. Metrics are scalars: `loss_sum`, `correct` and
        `count` over the counted clips, and `finite`.

    Raises:
        InputError: in its first call, if waveforms are to be changed and batches hold
            images.
    """

    def total(value):
        return value if axis_name is None else lax.psum(value, axis_name)

    changes = augment or Changes()
    network = classifier.network
    stages = models.stage_paths(network) if trainable is None else trainable

    def train_step(state: TrainState, batch: Batch, key: jax.Array):
        step_key = jax.random.fold_in(key, state.step)
        # These two are its streams 0 and 1; the waveforms' is another.
        dropout_key, image_key = jax.random.split(step_key)
        waveform_key = jax.random.fold_in(step_key, 2)
        mask = batch["mask"]
        targets = classifier.task.targets(batch["label"], len(classifier.classes))
        weight = mask * batch["weight"] if "weight" in batch else mask
        if changes.waveforms is not None:
            if "audio" not in batch:
                raise InputError(
                    "waveforms can't be changed in the stage 'spectrogram', which "
                    "keeps images alone; set config.data.stage to audio"
                )
            keys = row_keys(waveform_key, len(mask), axis_name)
            audio, targets = changes.waveforms(keys, batch["audio"], targets)
            batch = {**batch, "audio": audio}
        image = classifier.batch_image(batch)
        if changes.images is not None:
            keys = row_keys(image_key, len(mask), axis_name)
            image, targets = changes.images(keys, image, targets)
        count, total_weight = total((mask.sum(), weight.sum()))

        trained, frozen = models.split_params(network, state.params, stages)

        def loss(trained):
            params = models.merge_params(trained, frozen)
            logits, batch_stats = classifier.logits(
                {**state.variables, "params": params},
                image,
                train=True,
                rngs={"dropout": dropout_key},
            )
            losses = classifier.task.losses(logits, targets)
            correct = classifier.task.correct(logits, targets)
            weighted = jnp.sum(losses * weight) / total_weight
            sums = jnp.sum(losses * mask), jnp.sum(correct * mask)
            return weighted, (batch_stats, *sums)

        grads, (batch_stats, loss_sum, correct) = jax.grad(loss, has_aux=True)(trained)
        grads, loss_sum, correct = total((grads, loss_sum, correct))
        finite = jnp.isfinite(optax.tree.norm(grads)) & jnp.isfinite(loss_sum)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)

        def if_finite(new, old):
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        trained = if_finite(optax.apply_updates(trained, updates), trained)
        state = state.replace(
            step=state.step + 1,
            params=models.merge_params(trained, frozen),
            batch_stats=if_finite(batch_stats, state.batch_stats),
            opt_state=if_finite(opt_state, state.opt_state),
            skipped=state.skipped + ~finite,
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )
        sums = {"loss_sum": loss_sum, "correct": correct, "count": count}
        return state, sums | {"finite": finite}

    return train_step


def make_eval_step(classifier: Classifier) -> Callable[[Variables, Batch], jax.Array]:
    """`eval_step(variables, batch) -> logits [B, classes]`, float32."""

    def eval_step(variables: Variables, batch: Batch) -> jax.Array:
        return classifier.test_logits(variables, classifier.batch_image(batch))

    return eval_step


def data_parallel(
    step: Callable, devices: Sequence[Any] | None = None
) -> Callable[..., Any]:
    """One model over all devices: each takes an equal share of the batch.

    `step` is a `train_step` made with `axis_name=AXIS`, and `devices` None are all of
    the job. State and key are the same on every device and have no device axis, so a
    checkpoint knows nothing of how many there were.

    Returns:
        `step(state, batch, key)` for batches as `shard` gives them. The state given
        is used up.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=None,  # pyright: ignore[reportArgumentType]
        donate_argnums=(0,),
        devices=devices,
    )


def data_parallel_eval(
    step: Callable, devices: Sequence[Any] | None = None
) -> Callable[..., jax.Array]:
    """`eval_step` over all devices: logits come back as [D, B/D, classes]."""
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), devices=devices)


def seed_parallel(
    step: Callable, devices: Sequence[Any] | None = None
) -> Callable[..., Any]:
    """One model a device, which never speak to each other: a seed for each.

    `step` is a `train_step` made with `axis_name=None`.

    Returns:
        `step(states, batches, keys)`, each with a leading axis of seeds, as are the
        states and metrics that it returns. The states given are used up.
    """
    return jax.pmap(step, in_axes=(0, 0, 0), donate_argnums=(0,), devices=devices)


def shard(batch: Mapping[str, np.ndarray], num_devices: int) -> dict[str, np.ndarray]:
    """Splits every array's batch axis: [B, ...] -> [D, B/D, ...].

    Raises:
        ValueError: if B is not a multiple of `num_devices`.
    """
    return {
        name: value.reshape(num_devices, -1, *value.shape[1:])
        for name, value in batch.items()
    }
