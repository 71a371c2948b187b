"""The methods that explain the logits of a classifier: by images and by waveforms."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from audiojax import attribution
from audiojax.classifier import Classifier
from audiojax.pretrained import Variables


@dataclasses.dataclass(frozen=True)
class Logit:
    """One class's logit in one run, as a function of a batch of images [B, ...] -> [B].

    Attributes:
        classifier: what the run is of.
        variables: the run's.
        target: the class's number.
    """

    classifier: Classifier
    variables: Variables
    target: jax.Array

    def __call__(self, images: jax.Array) -> jax.Array:
        """The logits [B] of images [B, mel, frames, C]."""
        return self.classifier.test_logits(self.variables, images)[:, self.target]

    def of_maps(self, maps: jax.Array) -> jax.Array:
        """The same of what the last stage makes of images."""
        return self.classifier.head_logits(self.variables, maps)[:, self.target]

    def of_audio(self, length: jax.Array | None, audio: jax.Array) -> jax.Array:
        """The same of waveforms [B, T], of which `length` samples are their own."""
        lengths = None if length is None else jnp.full(len(audio), length)
        return self(self.classifier.image(audio, lengths))


# The attribution, as large as the image, and of Integrated Gradients what of its sum
# the gradients alone would have missed.
Found = tuple[jax.Array, jax.Array | None]


def integrated_gradients(
    logit: Logit, image: jax.Array, silence: jax.Array, key: jax.Array
) -> Found:
    """See `attribution.integrated_gradients`; the baseline is the image of silence.

    Not the mean of the training clips: only some workdirs know it, and silence is what
    a part of a sound that is taken away leaves.
    """
    del key
    path = attribution.linear_path()
    return attribution.integrated_gradients(logit, image, silence, path)


def smooth_grad(
    logit: Logit, image: jax.Array, silence: jax.Array, key: jax.Array
) -> Found:
    """See `attribution.smooth_grad`."""
    del silence
    return attribution.smooth_grad(logit, image, key), None


def grad_cam(
    logit: Logit, image: jax.Array, silence: jax.Array, key: jax.Array
) -> Found:
    """See `attribution.grad_cam`; each channel of the image has an equal part.

    Of the image as it is, where evaluation averages over shifts of it.
    """
    del silence, key
    maps = logit.classifier.last_maps(logit.variables, image[None])[0]
    found = attribution.grad_cam(logit.of_maps, maps, (image.shape[0], image.shape[1]))
    return jnp.broadcast_to(found[..., None], image.shape) / image.shape[-1], None


Method = Callable[[Logit, jax.Array, jax.Array, jax.Array], Found]
METHODS: dict[str, Method] = {
    "integrated_gradients": integrated_gradients,
    "smooth_grad": smooth_grad,
    "grad_cam": grad_cam,
}


def of_waveform(logit: Logit, audio: jax.Array, length: jax.Array | None) -> jax.Array:
    """Integrated Gradients [T] of a waveform [T], whose baseline are zeros."""
    found, _ = attribution.integrated_gradients(
        functools.partial(logit.of_audio, length),
        audio,
        jnp.zeros_like(audio),
        attribution.geometric_path(),
    )
    return found
