"""The only path from waveform to logits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from audiojax import catalog, features, models, pretrained
from audiojax.clips import INT16_FULL_SCALE, ClipPolicy
from audiojax.config import Config
from audiojax.errors import InputError, check_choice
from audiojax.features import LogMel
from audiojax.models import Network
from audiojax.pretrained import Variables
from audiojax.task import Task

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def as_float(audio: jax.Array) -> jax.Array:
    """Samples in [-1, 1], float32, also of 16-bit ones."""
    if audio.dtype == jnp.int16:
        return audio.astype(jnp.float32) / INT16_FULL_SCALE
    return audio


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network with its front end.

    What a sound is classified with is `variables`, three collections: `params` and
    `batch_stats` of the network, and `input`, the mean and standard deviation [C] by
    which images are standardized (0 and 1 where they are not).

    Attributes:
        network: a member of `models.MODELS`, image [B, mel, frames, C] to logits.
        log_mel: how a waveform becomes an image.
        classes: the names of the classes, in the order of the logits.
        clip_policy: how clips of any length become rows of waveforms, in samples at
            `log_mel.sample_rate`.
        weights: name or path of the pretrained weights, None for random ones.
        task: what labels mean.
        new_stages: stages that are drawn at random though weights are loaded; the
            head always is.
        keep_batch_norm: whether BatchNorm in `new_stages` is as pretrained.
        test_shifts: number of shifts in time that `test_logits` averages over; 0 or 1
            for the image as it is.
    """

    network: Network
    log_mel: LogMel
    classes: tuple[str, ...]
    clip_policy: ClipPolicy
    weights: str | None
    task: Task
    new_stages: tuple[str, ...] = ()
    keep_batch_norm: bool = False
    test_shifts: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(mel, frames, channels) of one clip's image."""
        channels = len(self.log_mel.window_ms)
        return self.log_mel.n_mels, self.log_mel.frames, channels

    def image(self, audio: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Waveforms to log-mel images, not standardized.

        Args:
            audio: [B, T].
            length: [B] samples that are a clip's own, None for all; counts only where
                they are stretched to full width.

        Returns:
            [B, mel, frames, C].
        """
        own = length if self.clip_policy.needs_length else None
        return features.log_mel(audio, self.log_mel, own)

    def batch_image(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The images of a batch, which holds them or the waveforms to make them of."""
        if "image" in batch:
            return batch["image"]
        return self.image(as_float(batch["audio"]), batch.get("length"))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Variables before training: pretrained where asked for, the head random."""
        variables = self._shapes
        if self.weights is not None:
            variables = pretrained.load(
                self.weights,
                variables,
                new=(self.network.head, *self._new_paths(variables["params"])),
                unused=self._cut_paths(),
            )
        variables = self._draw_missing(key, variables)
        channels = self.image_shape[-1]
        return {
            "params": variables["params"],
            "batch_stats": variables["batch_stats"],
            "input": {"mean": jnp.zeros(channels), "std": jnp.ones(channels)},
        }

    def _random(self, key: jax.Array) -> Any:
        """The network's own variables, all drawn."""
        image = jnp.zeros((1, *self.image_shape))
        return self.network.init(key, image, train=False)

    @functools.cached_property
    def _shapes(self) -> Any:
        """The shapes of the network's own variables."""
        return jax.eval_shape(self._random, jax.random.key(0))

    def _draw_missing(self, key: jax.Array, variables: Variables) -> dict[str, Any]:
        """Variables of which some are shapes alone, with these drawn by the key."""
        flat = traverse_util.flatten_dict(variables)
        missing = frozenset(
            path for path, leaf in flat.items() if not isinstance(leaf, jax.Array)
        )
        return traverse_util.unflatten_dict(flat | self._draw(missing, key))

    @functools.cached_property
    def _draw(self) -> Callable[..., dict[tuple[str, ...], jax.Array]]:
        """Variables of some paths by a key, compiled once for all runs.

        A program of all of them, most of which weights then replace, would compile
        many times as long.
        """

        def draw(paths: frozenset[tuple[str, ...]], key: jax.Array) -> Any:
            flat = traverse_util.flatten_dict(self._random(key))
            return {path: flat[path] for path in paths}

        return jax.jit(draw, static_argnums=0)

    def _new_paths(self, params: Variables) -> list[str]:
        """Published paths of what is not loaded beside the head."""
        if not self.keep_batch_norm:
            paths = models.stage_paths(self.network)
            return [path for name in self.new_stages for path in paths[name]]
        params, _ = models.split_params(self.network, params, self.new_stages)
        leaves = traverse_util.flatten_dict(params)
        return [".".join(path[:-1]) for path in leaves if path[-1] == "kernel"]

    def _cut_paths(self) -> list[str]:
        """Published paths of the stages that a cut network lacks."""
        kept = models.stage_paths(self.network)
        whole = models.stage_paths(self.network.clone(cut=None))
        return [path for name in whole.keys() - kept.keys() for path in whole[name]]

    def logits(
        self,
        variables: Variables,
        image: jax.Array,
        *,
        train: bool = False,
        rngs: dict[str, jax.Array] | None = None,
    ) -> Any:
        """Images [B, mel, frames, C] to logits [B, classes], float32.

        Args:
            variables: as `init` returns them.
            image: log-mel images, not standardized.
            train: normalize by the batch's own statistics and drop out.
            rngs: a key for "dropout", when training with dropout.

        Returns:
            The logits; in training a pair of them and the updated `batch_stats`.
        """
        network, image = network_arguments(variables, image)
        if not train:
            return self.network.apply(network, image, train=False)
        logits, updated = self.network.apply(
            network, image, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return logits, updated["batch_stats"]

    def outputs(
        self, variables: Variables, image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Logits [B, classes] as `logits` gives them, and what the head makes them of.

        That is the last stage's mean over the image, [B, features] float32.
        """
        network, image = network_arguments(variables, image)
        found: Any
        logits, found = self.network.apply(
            network, image, train=False, mutable=["stages"]
        )
        *_, last, _ = models.stage_paths(self.network)
        maps = found["stages"]["outputs"][last]
        return logits, jnp.mean(maps.astype(jnp.float32), axis=(1, 2))

    def last_maps(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Images as in `logits` to what the last stage makes of them, [B, H, W, F]."""
        network, image = network_arguments(variables, image)
        *_, last, _ = models.stage_paths(self.network)
        maps: Any = self.network.apply(network, image, train=False, until=last)
        return maps

    def head_logits(self, variables: Variables, maps: jax.Array) -> jax.Array:
        """The logits [B, classes] of what `last_maps` gave."""
        *_, last, _ = models.stage_paths(self.network)
        network = {name: variables[name] for name in ("params", "batch_stats")}
        logits: Any = self.network.apply(network, maps, train=False, after=last)
        return logits

    def test_logits(self, variables: Variables, image: jax.Array) -> jax.Array:
        """The logits of `test_outputs` alone: [B, classes], float32."""
        return self.test_outputs(variables, image)[0]

    def test_outputs(
        self, variables: Variables, image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """What evaluation and prediction take: `outputs`, averaged over `test_shifts`.

        Shift i of n moves the image circularly by the share i/n of its frames, rounded
        down. One shifted batch is in memory at a time.

        Args:
            variables: as `init` returns them.
            image: log-mel images [B, mel, frames, C], not standardized.

        Returns:
            Logits [B, classes], and what the head makes them of, [B, features]; both
            float32.
        """
        if self.test_shifts <= 1:
            return self.outputs(variables, image)
        shifts = np.arange(self.test_shifts) * image.shape[2] // self.test_shifts

        def shifted(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
            return self.outputs(variables, jnp.roll(image, shift, axis=2))

        found = jax.lax.map(shifted, jnp.asarray(shifts))
        return jax.tree.map(lambda x: x.mean(axis=0), found)


def network_arguments(
    variables: Variables, image: jax.Array
) -> tuple[dict[str, Any], jax.Array]:
    """The network's own variables, and images [B, mel, frames, C] standardized."""
    mean, std = variables["input"]["mean"], variables["input"]["std"]
    image = (image - mean[None, None, None]) / std[None, None, None]
    return {name: variables[name] for name in ("params", "batch_stats")}, image


def create(
    config: Config, classes: tuple[str, ...], task: Task, **network: Any
) -> Classifier:
    """The classifier that a config describes.

    Args:
        config: the whole config; `model`, `features` and what `data` says of the
            clips' lengths are read.
        classes: the names of the classes.
        task: what labels mean.
        **network: further fields of the network, such as `axis_name`.

    Returns:
        The classifier.

    Raises:
        InputError: for an unknown model, stage or compute type, or impossible dropout,
            stochastic depth, features, lengths or shifts.
    """
    check_choice("config.model.dtype", config.model.dtype, DTYPES)
    for field in ("dropout", "drop_path"):
        if not 0 <= config.model[field] < 1:
            raise InputError(
                f"config.model.{field} is {config.model[field]}; expected a share from "
                "0 to below 1"
            )
    log_mel = LogMel(**config.features)
    if not 0 <= config.data.test_shifts <= log_mel.frames:
        raise InputError(
            f"config.data.test_shifts is {config.data.test_shifts}; expected 0 for "
            f"none or 1 to {log_mel.frames}, the frames of an image"
        )
    weights = config.model.pretrained
    if weights == "imagenet":
        weights = config.model.name
    options = {} if weights is None else catalog.options(weights)
    built = models.create(
        config.model.name,
        num_classes=len(classes),
        dropout=config.model.dropout,
        drop_path=config.model.drop_path,
        remat=config.model.remat,
        cut=config.model.cut,
        he_fan_out=config.model.he_fan_out,
        dtype=DTYPES[config.model.dtype],
        batch_norm_momentum=config.model.batch_norm_momentum,
        **options,
        **network,
    )
    if config.model.drop_path and not built.residual:
        raise InputError(
            f"config.model.drop_path is {config.model.drop_path}, but "
            f"{config.model.name} has no residual branches to drop; set it to 0"
        )
    frozen, new = frozen_stages(config, built), config.model.reinitialize
    if not config.model.update_batch_norm:
        built = built.clone(fixed_batch_norm=frozen)
    return Classifier(
        network=built,
        log_mel=log_mel,
        classes=classes,
        clip_policy=ClipPolicy(
            mode=config.data.clip_mode,
            num_samples=int(np.rint(config.data.clip_seconds * log_mel.sample_rate)),
            num_windows=config.data.num_windows,
        ),
        weights=weights,
        task=task,
        new_stages=() if new is None else models.stages_from(built, new),
        keep_batch_norm=config.model.keep_batch_norm,
        test_shifts=config.data.test_shifts,
    )


def frozen_stages(config: Config, network: Network) -> tuple[str, ...]:
    """The stages whose parameters do not train: up to `config.model.freeze`.

    Raises:
        InputError: if there is no stage of that name, or nothing is left to train.
    """
    last, stages = config.model.freeze, tuple(models.stage_paths(network))
    if last is None:
        return ()
    trained = models.stages_from(network, last)[1:]
    if not trained:
        raise InputError(
            f"config.model.freeze is {last!r}, which leaves nothing to train; choose "
            f"one of {', '.join(stages[:-1])}"
        )
    return stages[: -len(trained)]
