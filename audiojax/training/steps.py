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

from audiojax import augment, models
from audiojax.augment import Changes
from audiojax.augment.rows import Rows
from audiojax.classifier import Classifier, Variables, as_float
from audiojax.models.layers import row_keys

AXIS = "batch"
VARIABLES = ("params", "batch_stats", "input")
AVERAGED = ("params", "batch_stats")

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
        best: a copy of `model_variables` as they were after the best epoch, None where
            no epoch is picked.
        skipped: number of updates left out because a value was not finite.
        skipped_in_a_row: the same, since the last update that was made.
        ema: averages of `params` and `batch_stats` over the updates, None where none
            are kept. Statistics are averaged as the parameters are, for averaged
            parameters give other images than the last ones.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    input: Any
    opt_state: optax.OptState
    skipped: jax.Array
    skipped_in_a_row: jax.Array
    best: Any = None
    ema: Any = None

    @property
    def variables(self) -> Variables:
        """What `Classifier.logits` takes in training."""
        return {name: getattr(self, name) for name in VARIABLES}

    @property
    def model_variables(self) -> Variables:
        """The model that was trained: the averages, where they are kept."""
        return {**self.variables, **(self.ema or {})}


def create_state(
    variables: Variables,
    optimizer: optax.GradientTransformation,
    *,
    trained: Any = None,
    pick_best: bool = False,
    average: bool = False,
) -> TrainState:
    """The state before the first step.

    It has room for the best epoch where it is picked, and for averages where they are
    kept. What trains is the part of the parameters that `models.split_params` gives, or
    all.
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
        ema=jax.tree.map(jnp.copy, {name: variables[name] for name in AVERAGED})
        if average
        else None,
    )


@jax.jit
def keep_best(state: TrainState, better: jax.Array) -> TrainState:
    """Copies the model's variables to `best` where `better` is true.

    It is a bool [], or [D] for several states with a leading axis.
    """

    def pick(new, old):
        chosen = better.reshape(better.shape + (1,) * (new.ndim - better.ndim))
        return jnp.where(chosen, new, old)

    return state.replace(best=jax.tree.map(pick, state.model_variables, state.best))


def averaged(state: TrainState, decay: float) -> Any:
    """The averages after an update: `decay` of the old ones and the rest of the new.

    That of update n, from 0, is at most (1 + n) / (10 + n), so that they soon forget
    where they began, as TensorFlow's `tf.train.ExponentialMovingAverage` does. The
    state is that after the update, with the averages of before.
    """
    number = state.step - 1 - state.skipped
    decay_now = jnp.minimum(decay, (1 + number) / (10 + number))
    new = {name: getattr(state, name) for name in AVERAGED}
    return optax.incremental_update(new, state.ema, 1 - decay_now)


def make_train_step(
    classifier: Classifier,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
    changes: Changes | None = None,
    trainable: Collection[str] | None = None,
    label_smoothing: float = 0.0,
    ema_decay: float = 0.0,
    accumulate: int = 1,
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
        changes: of waveforms, images and targets, None for none.
        trainable: names of the stages whose parameters train, None for all. There are
            no gradients of the others, and `create_state` must be given the same part.
        label_smoothing: how far the loss's targets are smoothed, see `Task.smoothed`.
        ema_decay: what averages keep of their old values in an update, where the state
            has such; see `averaged`.
        accumulate: in how many equal parts a device works its rows in, one after the
            other, so that less memory is needed for the network. Gradients are those
            of the whole batch, but for BatchNorm: it normalizes each part by itself,
            and its running statistics move once a part. Part i has the rows i, i +
            accumulate, … of the whole batch, on any number of devices; what dropout
            draws for a row depends on the number of parts.

    Returns:
        `train_step(state, batch, key) -> state, metrics`. The batch holds `image`
        [B, mel, frames, C] or `audio` [B, T], `label` [B] or [B, classes], `mask` [B],
        if clips count unequally `weight` [B], and if some are to be left as they are
        `changed` bool [B]. To change waveforms it must hold those. The same key may be
        given at every step; the step's number is folded into it, and the row's for what
        differs by clip, so devices do not matter. Metrics are scalars: `loss_sum`,
        `correct` and `count` over the counted clips, and `finite`.
    """

    def total(value):
        return value if axis_name is None else lax.psum(value, axis_name)

    changes = changes or Changes()
    network = classifier.network
    stages = models.stage_paths(network) if trainable is None else trainable

    def train_step(state: TrainState, batch: Batch, key: jax.Array):
        step_key = jax.random.fold_in(key, state.step)
        dropout_key, augment_key = jax.random.split(step_key)
        mask = batch["mask"]
        targets = classifier.task.targets(batch["label"], len(classifier.classes))
        weight = mask * batch["weight"] if "weight" in batch else mask
        image, targets = _changed(
            classifier, batch, targets, changes, augment_key, axis_name
        )
        count, total_weight = total((mask.sum(), weight.sum()))

        trained, frozen = models.split_params(network, state.params, stages)

        def loss(trained, batch_stats, key, image, targets, mask, weight):
            params = models.merge_params(trained, frozen)
            logits, batch_stats = classifier.logits(
                {**state.variables, "params": params, "batch_stats": batch_stats},
                image,
                train=True,
                rngs={"dropout": key},
            )
            smoothed = classifier.task.smoothed(targets, label_smoothing)
            losses = classifier.task.losses(logits, smoothed)
            correct = classifier.task.correct(logits, targets)
            weighted = jnp.sum(losses * weight) / total_weight
            sums = jnp.sum(losses * mask), jnp.sum(correct * mask)
            return weighted, (batch_stats, *sums)

        gradient = jax.grad(loss, has_aux=True)
        rows = image, targets, mask, weight
        if accumulate == 1:
            grads, (batch_stats, *sums) = gradient(
                trained, state.batch_stats, dropout_key, *rows
            )
        else:

            def add(carry, part):
                sums, batch_stats = carry
                grads, (batch_stats, *more) = gradient(trained, batch_stats, *part)
                return (optax.tree.add(sums, (grads, *more)), batch_stats), None

            zeros = optax.tree.zeros_like(trained), jnp.zeros(()), jnp.zeros(())
            part_keys = jax.random.split(dropout_key, accumulate)
            parts = part_keys, *_in_parts(rows, accumulate)
            carry, _ = lax.scan(add, (zeros, state.batch_stats), parts)
            (grads, *sums), batch_stats = carry
        grads, (loss_sum, correct) = total((grads, sums))
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
        if state.ema is not None:
            state = state.replace(ema=if_finite(averaged(state, ema_decay), state.ema))
        sums = {"loss_sum": loss_sum, "correct": correct, "count": count}
        return state, sums | {"finite": finite}

    return train_step


def _changed(
    classifier: Classifier,
    batch: Batch,
    targets: jax.Array,
    changes: Changes,
    key: jax.Array,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Images and targets of a batch, with its waveforms and images changed."""
    size = len(targets)
    row_key, batch_key = jax.random.split(key)
    draw = row_keys(row_key, size, axis_name), batch_key, axis_name
    active = batch.get("changed", jnp.ones(size, bool))
    length = batch.get("length", jnp.zeros(size, jnp.int32))
    if changes.waveforms:
        audio = as_float(batch["audio"])
        whole = jnp.full(size, audio.shape[1], jnp.int32)
        rows = Rows(audio, batch.get("length", whole), targets, active)
        audio, length, targets, _ = augment.apply(changes.waveforms, rows, *draw)
        batch = {**batch, "audio": audio}
        if "length" in batch:
            batch["length"] = length
    rows = Rows(classifier.batch_image(batch), length, targets, active)
    image, _, targets, _ = augment.apply(changes.images, rows, *draw)
    return image, targets


def _in_parts(rows: Any, count: int) -> Any:
    """Arrays [B, …] as [count, B/count, …], of which part i has every count-th row.

    It begins with row i, so a part has the same rows of a batch however many devices
    share that.
    """
    return jax.tree.map(
        lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), rows
    )


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
