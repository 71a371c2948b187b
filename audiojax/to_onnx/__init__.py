"""A classifier as an ONNX model, from waveform to probabilities.

Written by hand for the log-mel, as matrix products: a Fourier transform as an operator
does not run in browsers and on phones. The network comes from JAX's trace of it, with a
table of the few operators that our networks have, and names any other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from audiojax.classifier import Classifier
from audiojax.pretrained import Variables
from audiojax.to_onnx.front_end import add_log_mel
from audiojax.to_onnx.graph import Graph, Shaped
from audiojax.to_onnx.network import add_logits

_PROBABILITIES = {"single_label": "Softmax", "multi_label": "Sigmoid"}


def model(
    classifier: Classifier,
    members: Sequence[Variables],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Makes the model.

    Inputs are `audio`, float32 [batch, samples], rows as the clip policy makes them,
    and, where it stretches images, `length`, int32 [batch], as `Classifier.image` takes
    it. The output is `probabilities`, float32 [batch, classes].

    Args:
        classifier: what the model does; it computes in float32.
        members: the variables of each member of an ensemble, whose logits are averaged.
        metadata: kept in the file.

    Returns:
        The model, for any size of the batch.

    Raises:
        InputError: the network has an operator that can't be written.
    """
    graph, policy = Graph(), classifier.clip_policy
    inputs: dict[str, Shaped] = {"audio": (np.float32, ["batch", policy.num_samples])}
    length = "length" if policy.needs_length else None
    if length is not None:
        inputs[length] = (np.int32, ["batch"])
    image = add_log_mel(graph, "audio", policy.num_samples, classifier.log_mel, length)
    logits = [add_logits(graph, image, classifier, member) for member in members]
    mean = logits[0] if len(logits) == 1 else graph.add("Mean", *logits)
    operator = _PROBABILITIES[classifier.task.name]
    attributes = {"axis": -1} if operator == "Softmax" else {}
    graph.add(operator, mean, output="probabilities", **attributes)
    shape = ["batch", len(classifier.classes)]
    return graph.model(inputs, {"probabilities": (np.float32, shape)}, metadata)
