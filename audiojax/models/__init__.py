"""The networks, by name.

Each is a Flax Linen module whose parameters are named as in its published checkpoint:
`params["layer1"]["0"]["conv1"]["kernel"]` is `layer1.0.conv1.weight`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from audiojax.errors import InputError
from audiojax.models.capture import capture as capture
from audiojax.models.capture import layer_params as layer_params
from audiojax.models.densenet import DenseNet
from audiojax.models.efficientnet import EfficientNetLite
from audiojax.models.inception import InceptionV3
from audiojax.models.network import Network as Network
from audiojax.models.network import merge_params as merge_params
from audiojax.models.network import split_params as split_params
from audiojax.models.network import stage_names as stage_names
from audiojax.models.network import stage_paths as stage_paths
from audiojax.models.network import stages_from as stages_from
from audiojax.models.resnet import ResNet

MODELS: dict[str, Callable[..., Network]] = {
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3), bottleneck=False),
    "resnet50": partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet101": partial(ResNet, depths=(3, 4, 23, 3)),
    "resnet152": partial(ResNet, depths=(3, 8, 36, 3)),
    "densenet121": partial(DenseNet, depths=(6, 12, 24, 16)),
    "densenet161": partial(DenseNet, depths=(6, 12, 36, 24), growth=48),
    "densenet169": partial(DenseNet, depths=(6, 12, 32, 32)),
    "densenet201": partial(DenseNet, depths=(6, 12, 48, 32)),
    "inception_v3": InceptionV3,
    "efficientnet_lite0": partial(EfficientNetLite, width=1.0, depth=1.0),
    "efficientnet_lite1": partial(EfficientNetLite, width=1.0, depth=1.1),
    "efficientnet_lite2": partial(EfficientNetLite, width=1.1, depth=1.2),
    "efficientnet_lite3": partial(EfficientNetLite, width=1.2, depth=1.4),
    "efficientnet_lite4": partial(EfficientNetLite, width=1.4, depth=1.8),
}


def create(name: str, num_classes: int, **options: Any) -> Network:
    """Gives the network `name` for `num_classes` classes, without parameters.

    Args:
        name: a key of `MODELS`.
        num_classes: number of logits.
        **options: fields of `Network` and of the family, such as `dropout`.

    Raises:
        InputError: there is no network of that name.
    """
    if name not in MODELS:
        raise InputError(
            f"unknown model {name!r}; the known ones are: {', '.join(MODELS)}"
        )
    return MODELS[name](num_classes=num_classes, **options)
