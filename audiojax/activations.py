"""Features of images: what the stages and layers of a network make of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from audiojax import models
from audiojax.classifier import Classifier, Variables, network_arguments
from audiojax.errors import InputError
from audiojax.models import Network

BATCH_SIZE = 32


def pooled(
    classifier: Classifier,
    variables: Variables,
    images: np.ndarray,
    layers: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """The means over the image of what layers give, a row for each clip.

    Args:
        classifier: whose network it is.
        variables: as `Classifier.init` returns them, or `Workdir.variables`.
        images: log-mel images [N, mel, frames, C], not standardized.
        layers: names of stages and of layers inside of them (`models.capture`); None
            for all stages.

    Returns:
        For each name features [N, channels], float32, rows in the order of the images.

    Raises:
        InputError: for a name that the network lacks, or for no images.
    """
    found = list(batches(classifier, variables, images, layers, pool=True))
    return {name: np.concatenate([x[name][:, 0] for x in found]) for name in found[0]}


def pixels(
    classifier: Classifier,
    variables: Variables,
    images: np.ndarray,
    layers: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """What layers give at each pixel of their output, a row for each.

    Of many clips these are large; `batches` gives them in parts.

    Args, Raises: as `pooled`.

    Returns:
        For each name features [N * height * width, channels], float32: all pixels of
        the first image, then all of the second, …
    """
    found = list(batches(classifier, variables, images, layers))
    return {
        name: np.concatenate([x[name].reshape(-1, x[name].shape[-1]) for x in found])
        for name in found[0]
    }


def batches(
    classifier: Classifier,
    variables: Variables,
    images: np.ndarray,
    layers: Sequence[str] | None = None,
    *,
    pool: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """What layers give at each pixel, for a batch of images after the other.

    All batches have one size, so that a network is compiled once however often this is
    called: the last one is filled up with copies of its last image, which are left out
    of what is given.

    Args, Raises: as `pooled`.

    Yields:
        For each name [B, height * width, channels], float32; with `pool` the mean over
        the pixels, [B, 1, channels].
    """
    if not len(images):
        raise InputError("no images to take features of; give one clip or more")
    network = classifier.network
    names = models.stage_names(network) if layers is None else tuple(layers)
    variables = jax.device_put(variables)
    for first in range(0, len(images), BATCH_SIZE):
        batch = np.asarray(images[first : first + BATCH_SIZE])
        filled = batch[np.minimum(np.arange(BATCH_SIZE), len(batch) - 1)]
        found = _features(network, names, pool, variables, filled)
        yield {name: np.asarray(found[name])[: len(batch)] for name in names}


# The network, not the classifier, is what it is compiled for: runs of a sweep, and a
# pretrained and a random network, share one program.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _features(
    network: Network,
    names: tuple[str, ...],
    pool: bool,
    variables: Variables,
    image: jax.Array,
) -> dict[str, jax.Array]:
    arguments, image = network_arguments(variables, image)
    found = models.capture(network, arguments, image, names)
    flat = {
        name: x.astype(jnp.float32).reshape(len(x), -1, x.shape[-1])
        for name, x in found.items()
    }
    if not pool:
        return flat
    return {name: x.mean(axis=1, keepdims=True) for name, x in flat.items()}


def sizes(
    classifier: Classifier, layers: Sequence[str] | None = None
) -> dict[str, tuple[int, int]]:
    """How many pixels and channels layers give for an image; computes nothing.

    Raises:
        InputError: for a name that the network lacks.
    """
    network = classifier.network
    names = models.stage_names(network) if layers is None else tuple(layers)
    image = jax.ShapeDtypeStruct((1, *classifier.image_shape), jnp.float32)

    def run(image: jax.Array) -> dict[str, jax.Array]:
        variables = network.init(jax.random.key(0), image, train=False)
        return models.capture(network, variables, image, names)

    found = jax.eval_shape(run, image)
    shapes = {name: found[name].shape for name in names}
    return {name: (shape[1] * shape[2], shape[3]) for name, shape in shapes.items()}
