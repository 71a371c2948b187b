"""Inception-v3: Szegedy et al., arXiv 1512.00567, as in torchvision.

Without the auxiliary head, which neither inference nor fine-tuning here needs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiojax.errors import InputError
from audiojax.models.layers import avg_pool, max_pool
from audiojax.models.network import Network, Stage


@dataclasses.dataclass(frozen=True)
class _Conv:
    """A `ConvNorm` of a branch: with stride 1 it keeps the size, else it has no pad."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1

    @property
    def padding(self) -> tuple[int, int]:
        height, width = self.kernel
        return (height // 2, width // 2) if self.stride == 1 else (0, 0)


# Branches beside each other, whose outputs are joined along the channels. Each is a
# row of steps: a convolution, a function of the image, or branches in turn.
Branches = Sequence[Sequence[Any]]

_mean_pool = partial(avg_pool, kernel=3, stride=1, padding=1)
_halve = partial(max_pool, kernel=3, stride=2)


class ConvNorm(nn.Module):
    """A convolution, normalized and rectified.

    Attributes:
        convolution: makes the convolution.
        norm: makes the normalization.
    """

    convolution: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the rectified image."""
        image = self.convolution(name="conv")(image)
        return nn.relu(self.norm(name="bn")(image))


class Mixed(nn.Module):
    """Branches of convolutions and pooling side by side.

    Attributes:
        branches: the branches.
        conv: makes a convolution.
        norm: makes a normalization.
    """

    branches: Branches
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the outputs of the branches, joined along the channels."""
        return self._fork(self.branches, image)

    def _fork(self, branches: Branches, image: jax.Array) -> jax.Array:
        outputs = []
        for branch in branches:
            output = image
            for step in branch:
                output = self._step(step, output)
            outputs.append(output)
        return jnp.concatenate(outputs, axis=-1)

    def _step(self, step: Any, image: jax.Array) -> jax.Array:
        if isinstance(step, Sequence):
            return self._fork(step, image)
        if not isinstance(step, _Conv):
            return step(image)
        conv = partial(self.conv, step.features, step.kernel, step.stride, step.padding)
        return ConvNorm(conv, self.norm, name=step.name)(image)


def _mixed_5(pool: int) -> Branches:
    return [
        [_Conv("branch1x1", 64)],
        [_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, (5, 5))],
        [
            _Conv("branch3x3dbl_1", 64),
            _Conv("branch3x3dbl_2", 96, (3, 3)),
            _Conv("branch3x3dbl_3", 96, (3, 3)),
        ],
        [_mean_pool, _Conv("branch_pool", pool)],
    ]


def _mixed_6a() -> Branches:
    return [
        [_Conv("branch3x3", 384, (3, 3), stride=2)],
        [
            _Conv("branch3x3dbl_1", 64),
            _Conv("branch3x3dbl_2", 96, (3, 3)),
            _Conv("branch3x3dbl_3", 96, (3, 3), stride=2),
        ],
        [_halve],
    ]


def _mixed_6(width: int) -> Branches:
    return [
        [_Conv("branch1x1", 192)],
        [
            _Conv("branch7x7_1", width),
            _Conv("branch7x7_2", width, (1, 7)),
            _Conv("branch7x7_3", 192, (7, 1)),
        ],
        [
            _Conv("branch7x7dbl_1", width),
            _Conv("branch7x7dbl_2", width, (7, 1)),
            _Conv("branch7x7dbl_3", width, (1, 7)),
            _Conv("branch7x7dbl_4", width, (7, 1)),
            _Conv("branch7x7dbl_5", 192, (1, 7)),
        ],
        [_mean_pool, _Conv("branch_pool", 192)],
    ]


def _mixed_7a() -> Branches:
    return [
        [_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, (3, 3), stride=2)],
        [
            _Conv("branch7x7x3_1", 192),
            _Conv("branch7x7x3_2", 192, (1, 7)),
            _Conv("branch7x7x3_3", 192, (7, 1)),
            _Conv("branch7x7x3_4", 192, (3, 3), stride=2),
        ],
        [_halve],
    ]


def _mixed_7() -> Branches:
    def cross(name: str) -> Branches:
        return [[_Conv(f"{name}a", 384, (1, 3))], [_Conv(f"{name}b", 384, (3, 1))]]

    return [
        [_Conv("branch1x1", 320)],
        [_Conv("branch3x3_1", 384), cross("branch3x3_2")],
        [
            _Conv("branch3x3dbl_1", 448),
            _Conv("branch3x3dbl_2", 384, (3, 3)),
            cross("branch3x3dbl_3"),
        ],
        [_mean_pool, _Conv("branch_pool", 192)],
    ]


_MIXED: dict[str, Branches] = {
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": _mixed_6a(),
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": _mixed_7a(),
    "Mixed_7b": _mixed_7(),
    "Mixed_7c": _mixed_7(),
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

    def stages(self, conv: Callable[..., Any], norm: Callable[..., Any]) -> list[Stage]:
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
                (name, [(name, partial(Mixed, branches, conv, norm))])
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
