"""Inception-v3: Szegedy et al., arXiv 1512.00567, as in torchvision.

Without the auxiliary head, which neither inference nor fine-tuning here needs.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiojax.errors import InputError
from audiojax.models.layers import Block, Factory, avg_pool, max_pool
from audiojax.models.network import Network, Stage


class _Conv(NamedTuple):
    """A `ConvNorm` of a branch: with stride 1 it keeps the size, else it has no pad."""

    name: str
    features: int
    height: int
    width: int
    stride: int = 1


# Branches beside each other, whose outputs are joined along the channels. Each is a
# row of steps: a convolution, a function of the image, or branches in turn.
Branches = Sequence[Sequence[Any]]

_mean_pool = partial(avg_pool, kernel=3, stride=1, padding=1)
_halve = partial(max_pool, kernel=3, stride=2)


class ConvNorm(Block):
    """A convolution, normalized and rectified."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the rectified image."""
        image = self.conv(name="conv")(image)
        return nn.relu(self.norm(name="bn")(image))


class Mixed(Block):
    """Branches of convolutions and pooling side by side.

    Attributes:
        branches: the branches.
    """

    branches: Branches

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the outputs of the branches, joined along the channels."""
        return self._fork(self.branches, image)

    def _fork(self, branches: Branches, image: jax.Array) -> jax.Array:
        outputs = [reduce(self._step, branch, image) for branch in branches]
        return jnp.concatenate(outputs, axis=-1)

    def _step(self, image: jax.Array, step: Any) -> jax.Array:
        if not isinstance(step, _Conv):
            fork = isinstance(step, Sequence)
            return self._fork(step, image) if fork else step(image)
        kernel = (step.height, step.width)
        padding = tuple(side // 2 for side in kernel) if step.stride == 1 else (0, 0)
        conv = partial(self.conv, step.features, kernel, step.stride, padding)
        return ConvNorm(conv, self.norm, name=step.name)(image)


def _row(name: str, *steps: tuple[int, int, int], stride: int = 1) -> list[_Conv]:
    """Convolutions NAME_1, NAME_2 …, or NAME alone, the last one with the stride."""
    names = [f"{name}_{i + 1}" for i in range(len(steps))] if steps[1:] else [name]
    row = [_Conv(name, *step) for name, step in zip(names, steps, strict=True)]
    return [*row[:-1], row[-1]._replace(stride=stride)]


def _mixed_5(pool: int) -> Branches:
    return [
        _row("branch1x1", (64, 1, 1)),
        _row("branch5x5", (48, 1, 1), (64, 5, 5)),
        _row("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3)),
        [_mean_pool, *_row("branch_pool", (pool, 1, 1))],
    ]


def _mixed_6(c: int) -> Branches:
    tall, flat = (c, 7, 1), (c, 1, 7)
    return [
        _row("branch1x1", (192, 1, 1)),
        _row("branch7x7", (c, 1, 1), flat, (192, 7, 1)),
        _row("branch7x7dbl", (c, 1, 1), tall, flat, tall, (192, 1, 7)),
        [_mean_pool, *_row("branch_pool", (192, 1, 1))],
    ]


def _cross(name: str) -> Branches:
    return [[_Conv(f"{name}a", 384, 1, 3)], [_Conv(f"{name}b", 384, 3, 1)]]


_MIXED_7 = [
    _row("branch1x1", (320, 1, 1)),
    [_Conv("branch3x3_1", 384, 1, 1), _cross("branch3x3_2")],
    [*_row("branch3x3dbl", (448, 1, 1), (384, 3, 3)), _cross("branch3x3dbl_3")],
    [_mean_pool, *_row("branch_pool", (192, 1, 1))],
]

_MIXED: dict[str, Branches] = {
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": [
        _row("branch3x3", (384, 3, 3), stride=2),
        _row("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3), stride=2),
        [_halve],
    ],
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": [
        _row("branch3x3", (192, 1, 1), (320, 3, 3), stride=2),
        _row(
            "branch7x7x3", (192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3), stride=2
        ),
        [_halve],
    ],
    "Mixed_7b": _MIXED_7,
    "Mixed_7c": _MIXED_7,
}


class InceptionV3(Network, kw_only=True):
    """Inception-v3; stages Conv2d_1a_3x3, 2a, 2b, 3b_1x1, 4a, Mixed_5b to Mixed_7c.

    A pooling belongs to the stage before it. Images are at least 75 high and wide.
    Fresh convolutions are normal with deviation 0.1, cut at two deviations.

    Attributes:
        transform_input: images come standardized by ImageNet's mean and deviation,
            and are changed to the -1..1 that torchvision's weights were trained on.
    """

    transform_input: bool = False

    head = "fc"
    epsilon = 1e-3
    init_conv = nn.initializers.truncated_normal(0.1)

    def stages(self, conv: Factory, norm: Factory, drop: Factory) -> list[Stage]:
        """See `Network.stages`."""

        def stem(name: str, features: int, kernel: int, **options: Any) -> Any:
            convolution = partial(conv, features, kernel, **options)
            return name, partial(ConvNorm, convolution, norm)

        first = [_to_unit_range] if self.transform_input else []
        return [
            ("Conv2d_1a_3x3", [*first, stem("Conv2d_1a_3x3", 32, 3, stride=2)]),
            ("Conv2d_2a_3x3", [stem("Conv2d_2a_3x3", 32, 3)]),
            ("Conv2d_2b_3x3", [stem("Conv2d_2b_3x3", 64, 3, padding=1), _halve]),
            ("Conv2d_3b_1x1", [stem("Conv2d_3b_1x1", 80, 1)]),
            ("Conv2d_4a_3x3", [stem("Conv2d_4a_3x3", 192, 3), _halve]),
            *(
                (name, [(name, partial(Mixed, conv, norm, branches))])
                for name, branches in _MIXED.items()
            ),
        ]


def _to_unit_range(image: jax.Array) -> jax.Array:
    """From ImageNet's standardization to pixels in -1..1."""
    if image.shape[-1] != 3:
        raise InputError(
            f"transform_input needs images of 3 channels, found {image.shape[-1]}: "
            "set transform_input to False"
        )
    mean = np.array([[[[0.485, 0.456, 0.406]]]], np.float32)
    std = np.array([[[[0.229, 0.224, 0.225]]]], np.float32)
    return image * (std / 0.5) + (mean - 0.5) / 0.5
