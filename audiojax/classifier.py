"""The only path from waveform to logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from audiojax import catalog, features, models, pretrained
from audiojax.clips import ClipPolicy
from audiojax.config import Config
from audiojax.errors import InputError
from audiojax.features import LogMel
from audiojax.models import Network
from audiojax.task import Task

Variables = Mapping[str, Any]

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


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
    """

    network: Network
    log_mel: LogMel
    classes: tuple[str, ...]
    clip_policy: ClipPolicy
    weights: str | None
    task: Task

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(mel, frames, channels) of one clip's image."""
        channels = len(self.log_mel.window_ms)
        return self.log_mel.n_mels, self.log_mel.frames, channels

    def image(self, audio: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Waveforms to log-mel images, not standardized.

        Args:
            audio: [B, T].
            length: [B] samples that are a clip's own, to be stretched to full width;
                None for all.

        Returns:
            [B, mel, frames, C].
        """
        return features.log_mel(audio, self.log_mel, length)

    def batch_image(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The images of a batch, which holds them or the waveforms to make them of."""
        if "image" in batch:
            return batch["image"]
        return self.image(batch["audio"], batch.get("length"))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Variables before training: pretrained where asked for, the head random."""
        image = jnp.zeros((1, *self.image_shape))
        variables = jax.jit(lambda key: self.network.init(key, image, train=False))(key)
        if self.weights is not None:
            variables = pretrained.load(
                self.weights, variables, new=(self.network.head,)
            )
        channels = self.image_shape[-1]
        return {
            "params": variables["params"],
            "batch_stats": variables["batch_stats"],
            "input": {"mean": jnp.zeros(channels), "std": jnp.ones(channels)},
        }

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
        mean, std = variables["input"]["mean"], variables["input"]["std"]
        image = (image - mean[None, None, None]) / std[None, None, None]
        network = {name: variables[name] for name in ("params", "batch_stats")}
        if not train:
            return self.network.apply(network, image, train=False)
        logits, updated = self.network.apply(
            network, image, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return logits, updated["batch_stats"]


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
        InputError: for an unknown model or compute type, or impossible dropout,
            features or lengths.
    """
    if config.model.dtype not in DTYPES:
        raise InputError(
            f"config.model.dtype is {config.model.dtype!r}; choose one of "
            f"{', '.join(DTYPES)}"
        )
    if not 0 <= config.model.dropout < 1:
        raise InputError(
            f"config.model.dropout is {config.model.dropout}; expected a share from 0 "
            "to below 1"
        )
    log_mel = LogMel(**config.features)
    weights = config.model.pretrained
    if weights == "imagenet":
        weights = config.model.name
    options = {} if weights is None else catalog.options(weights)
    return Classifier(
        network=models.create(
            config.model.name,
            num_classes=len(classes),
            dropout=config.model.dropout,
            dtype=DTYPES[config.model.dtype],
            batch_norm_momentum=config.model.batch_norm_momentum,
            **options,
            **network,
        ),
        log_mel=log_mel,
        classes=classes,
        clip_policy=ClipPolicy(
            mode=config.data.clip_mode,
            num_samples=int(np.rint(config.data.clip_seconds * log_mel.sample_rate)),
            num_windows=config.data.num_windows,
        ),
        weights=weights,
        task=task,
    )
