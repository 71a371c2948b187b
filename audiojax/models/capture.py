"""What the stages of a network, and the layers inside of them, make of an image.

A name is that of a stage, or of a layer inside of one: the stage's name, then what is
inside of it by the names of the published checkpoint, joined by points, such as
`denseblock1.denselayer2.conv2`, `layer1.0.conv1` or `Mixed_5b.branch1x1`. A stage of
several layers, as the first of most families, has them inside: `conv0.conv0` and
`conv0.norm0`; its own name stands for what leaves it, after activation and pooling.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from audiojax.errors import InputError, listed
from audiojax.models.network import Network, split_params, stage_names, stage_paths


def capture(
    network: Network,
    variables: Mapping[str, Any],
    image: jax.Array,
    names: Sequence[str],
) -> dict[str, jax.Array]:
    """The outputs of stages and layers, of a network that is not training.

    Args:
        network: whose they are.
        variables: its `params` and `batch_stats`.
        image: [B,H,W,3].
        names: of stages and layers.

    Returns:
        For each name [B,H',W',C], in the network's type, in the order of the names.

    Raises:
        InputError: for a name that the network lacks; what it has in its place is
            listed.
    """
    paths = {name: _path(network, variables["params"], name) for name in names}
    wanted = {path for path in paths.values() if path}

    def is_wanted(module: nn.Module, method: str) -> bool:
        return module.path in wanted and method == "__call__"

    found: Any
    _, found = network.apply(
        variables,
        image,
        train=False,
        mutable=["stages"],
        capture_intermediates=is_wanted,
    )
    outputs = {}
    for name, path in paths.items():
        if not path:
            outputs[name] = found["stages"]["outputs"][name]
            continue
        inside = found["intermediates"]
        for part in path:
            inside = inside[part]
        (outputs[name],) = inside["__call__"]
    return outputs


def layer_params(
    network: Network, params: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """The parameters of a stage or layer, nested as those of the network.

    Raises:
        InputError: for a name that the network lacks.
    """
    path = _path(network, params, name)
    if not path:
        return split_params(network, params, [name])[0]
    inside: Any = params
    for part in path:
        inside = inside[part]
    return inside


def _path(network: Network, params: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The path of a layer in the parameters; empty for a stage."""
    stages = stage_names(network)
    if name in stages:
        return ()
    for stage in stages:
        if not name.startswith(f"{stage}."):
            continue
        layers = stage_paths(network)[stage]
        parts = name.removeprefix(f"{stage}.").split(".")
        if len(layers) == 1:
            return _walk(params, name, stage, tuple(layers[0].split(".")), parts)
        own = {layer.rpartition(".")[2]: layer for layer in layers}
        if parts[0] not in own:
            raise _unknown(name, stage, own)
        layer, above = own[parts[0]], f"{stage}.{parts[0]}"
        return _walk(params, name, above, tuple(layer.split(".")), parts[1:])
    raise InputError(
        f"the network has no stage or layer {name!r}; its stages are: "
        f"{', '.join(stages)}"
    )


def _walk(
    params: Any, name: str, above: str, path: tuple[str, ...], parts: Sequence[str]
) -> tuple[str, ...]:
    """The path with the parts after it, each of which there is."""
    for part in path:
        params = params[part]
    for part in parts:
        inside = [key for key, value in params.items() if isinstance(value, Mapping)]
        if part not in inside:
            raise _unknown(name, above, inside)
        params, path, above = params[part], (*path, part), f"{above}.{part}"
    return path


def _unknown(name: str, above: str, inside: Sequence[str] | Mapping[str, Any]):
    there = listed(inside, ", ", limit=50) or "no layers"
    return InputError(
        f"the network has no layer {name!r}; in {above} there are: {there}"
    )
