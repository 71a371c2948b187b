"""Published weights: how they are named, and strict loading.

A weights file is a safetensors file with the names and the layout of PyTorch, whether
it comes from the Hugging Face hub or from `scripts/convert_weights.py`. One rule
translates between its names and our variables, in both directions.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from audiojax import files
from audiojax.catalog import locate
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)

Variables = Mapping[str, Any]

# The rename rule: our path joined by points, its last part by this table …
_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
# … and what a checkpoint holds that inference and training from it do not need:
# PyTorch's count of batches, and Inception's auxiliary head.
_IGNORED = re.compile(r"\.num_batches_tracked$|^AuxLogits\.")

# The order of our axes in PyTorch, by their number ([H,W,I,O] -> [O,I,H,W], [I,O] ->
# [O,I]), and of PyTorch's axes here.
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
}
_FIRST_CONVOLUTIONS = (
    "conv1.weight",
    "features.conv0.weight",
    "Conv2d_1a_3x3.conv.weight",
    "conv_stem.weight",
)


def load(
    weights: str | Path,
    variables: Variables,
    *,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> dict[str, Any]:
    """Gives variables with the values of a weights file.

    Every parameter and batch statistic of the network has to be in the file with its
    shape, in float32, and the file may hold nothing else. All that differs is listed
    in one error. The first convolution alone may have another number of input
    channels than the file's three: its kernel is then summed over them for one
    channel, or tiled and scaled by 3/n for n, so that gray images give the
    activations that they gave.

    Args:
        weights: a network's name, which is looked up in the weights folders and then
            on the Hugging Face hub, or the path of a safetensors file.
        variables: freshly initialized `params` and `batch_stats`, or their shapes.
        new: published paths, such as the head "fc" or "layer4.2", whose values stay
            those of `variables`, whatever the file has there.
        unused: published paths that the file may have and the network has not.

    Raises:
        InputError: weights that are not known or cannot be had; a file that is not
            whole, has another sum than its record says, or does not fit the network.
    """
    path, record = locate(weights)
    return fit(path, read(path, record.sha256), variables, new=new, unused=unused)


def fit(
    source: str | Path,
    arrays: Mapping[str, np.ndarray],
    variables: Variables,
    *,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> dict[str, Any]:
    """Gives variables with the values of published arrays, as `load` does of a file.

    Args:
        source: what to call the arrays in messages.
        arrays: values by published names, in PyTorch's layout.
        variables: as in `load`, as are `new` and `unused`.
        new: see `load`.
        unused: see `load`.

    Raises:
        InputError: the arrays do not fit the network.
    """
    paths, leaves = _flatten(variables)
    kept = {name for name in leaves if _under(name, new)}
    expected = {
        name: tuple(leaf.shape[axis] for axis in _TO_TORCH[leaf.ndim])
        for name, leaf in leaves.items()
        if name not in kept
    }
    found = {
        name: _fit_channels(name, array, expected)
        for name, array in arrays.items()
        if not (_IGNORED.search(name) or _under(name, (*new, *unused)))
    }
    both = expected.keys() & found.keys()
    differences = {
        "missing": expected.keys() - both,
        "unexpected": found.keys() - both,
        "of another shape": [
            f"{name} {found[name].shape} instead of {expected[name]}"
            for name in both
            if found[name].shape != expected[name]
        ],
        "of another type": [
            f"{name} {found[name].dtype} instead of float32"
            for name in both
            if found[name].dtype != np.float32
        ],
        "to be new but not in the network": [
            path for path in new if not any(_under(name, (path,)) for name in leaves)
        ],
    }
    sentences = [
        f"{len(names)} parameter{'s'[: len(names) != 1]} {what}: "
        + listed(sorted(names), ", ", limit=8)
        for what, names in differences.items()
        if names
    ]
    if sentences:
        raise InputError(f"{source}: {'; '.join(sentences)}")
    logger.info("%s: %d arrays loaded", source, len(found))
    if kept:
        logger.info("%s: new and not loaded: %s", source, ", ".join(sorted(kept)))
    for name, array in found.items():
        leaves[name] = jnp.asarray(array.transpose(_FROM_TORCH[array.ndim]))
    flat = {paths[name]: leaf for name, leaf in leaves.items()}
    return {**variables, **traverse_util.unflatten_dict(flat)}


def to_published(variables: Variables) -> dict[str, np.ndarray]:
    """Gives parameters and batch statistics by their published names, as PyTorch's.

    The inverse of `load`: kernels [H,W,I,O] become [O,I,H,W], and [I,O] become [O,I].
    """
    _, leaves = _flatten(variables)
    return {
        name: np.ascontiguousarray(np.transpose(leaf, _TO_TORCH[leaf.ndim]))
        for name, leaf in leaves.items()
    }


def save(path: str | Path, variables: Variables) -> None:
    """Writes variables as a weights file that PyTorch's packages can load."""
    write(path, to_published(variables))


def write(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file, whole or not at all."""
    files.write_bytes(path, safetensors.numpy.save(dict(arrays), {"format": "pt"}))


def read(path: str | Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of a safetensors file.

    Args:
        path: the file.
        sha256: its sum, or None where no sum is on record.

    Raises:
        InputError: the file is missing, not a whole safetensors file, or has another
            sum.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected weights: {error.strerror}") from None
    arrays = _decode(path, data)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is None:
        logger.warning("%s: no sum is on record to check; it is %s", path, found)
    elif found != sha256:
        raise InputError(
            f"{path}: sha256 is {found}, expected {sha256}; the file is damaged or "
            "another version: remove it and get it again"
        )
    return arrays


def _decode(path: str | Path, data: bytes) -> dict[str, np.ndarray]:
    kind = None
    if data.lstrip()[:1] == b"<":
        kind = "an HTML page"
    elif data.startswith((b"PK", b"\x80\x02")):
        kind = "a PyTorch pickle, which scripts/convert_weights.py converts"
    if kind:
        raise InputError(f"{path}: expected a safetensors file, found {kind}")
    try:
        entries = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path}: truncated, or not a safetensors file ({error}); get it again"
        ) from None
    foreign = {entry["dtype"] for entry in entries.values()} - _DTYPES.keys()
    if foreign:
        raise InputError(f"{path}: holds values of type {foreign}, expected F32")
    arrays = {}
    for name, entry in entries.items():
        values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return arrays


def _flatten(variables: Variables) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our paths and our arrays, both by their published names."""
    paths, leaves = {}, {}
    for collection in ("params", "batch_stats"):
        for path, leaf in traverse_util.flatten_dict(variables[collection]).items():
            name = ".".join((*path[:-1], _LEAVES[collection, path[-1]]))
            paths[name], leaves[name] = (collection, *path), leaf
    return paths, leaves


def _under(name: str, paths: Iterable[str]) -> bool:
    return any(name == path or name.startswith(path + ".") for path in paths)


def _fit_channels(
    name: str, array: np.ndarray, expected: Mapping[str, tuple[int, ...]]
) -> np.ndarray:
    """Sums or tiles the colors of the first kernel [O,3,H,W] to fit the network."""
    shape = expected.get(name, array.shape)
    if name not in _FIRST_CONVOLUTIONS or shape == array.shape or array.shape[1] != 3:
        return array
    channels = shape[1]
    logger.info("%s: adapted from 3 to %d input channels", name, channels)
    if channels == 1:
        return array.sum(axis=1, keepdims=True)
    return array[:, np.arange(channels) % 3] * np.float32(3 / channels)
