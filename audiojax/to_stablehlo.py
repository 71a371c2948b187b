"""A classifier as a StableHLO program, from waveform to probabilities."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from audiojax.classifier import Classifier
from audiojax.models.forms import Form, forced
from audiojax.pretrained import Variables

PLATFORMS = ("cpu", "cuda", "tpu")

_ACTIVATIONS = {"single_label": jax.nn.softmax, "multi_label": jax.nn.sigmoid}


def mean_logits(
    classifier: Classifier,
    members: Sequence[Variables],
    audio: jax.Array,
    length: jax.Array | None = None,
) -> jax.Array:
    """The members' mean logits [B, classes].

    Args:
        classifier: the members'.
        members: the variables of each, as `Classifier.logits` takes them.
        audio: rows of waveforms [B, samples].
        length: as `Classifier.image` takes it.
    """
    image = classifier.image(audio, length)
    logits = [classifier.logits(variables, image) for variables in members]
    return functools.reduce(jnp.add, logits) / len(logits)


def serialize(classifier: Classifier, members: Sequence[Variables]) -> bytes:
    """The program as `jax.export` serializes it, for `PLATFORMS` and any batch size.

    Arguments are `audio`, float32 [batch, samples], rows as the clip policy makes them,
    and, where it stretches images, `length`, int32 [batch], as `Classifier.image` takes
    it. The result is the probabilities, float32 [batch, classes].

    Args:
        classifier: what the program does.
        members: the variables of each member of an ensemble, whose logits are averaged.
    """
    policy, activate = classifier.clip_policy, _ACTIVATIONS[classifier.task.name]

    def traced(form: Form, *arguments: Any) -> jax.Array:
        with forced(form):
            return mean_logits(classifier, *arguments)

    def probabilities(audio: jax.Array, *length: jax.Array) -> jax.Array:
        # The weights are arguments, so that both forms share them.
        logits = jax.lax.platform_dependent(
            list(members),
            audio,
            *length,
            cpu=functools.partial(traced, "cpu"),
            default=functools.partial(traced, "native"),
        )
        return activate(logits)

    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, policy.num_samples), jnp.float32)]
    if policy.needs_length:
        shapes.append(jax.ShapeDtypeStruct((batch,), jnp.int32))
    exported = export.export(jax.jit(probabilities), platforms=PLATFORMS)(*shapes)
    return bytes(exported.serialize())
