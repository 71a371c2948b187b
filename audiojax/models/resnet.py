"""Residual networks: He et al., "Deep Residual Learning", arXiv 1512.03385.

As in torchvision: the stride of a bottleneck is in its 3x3 convolution.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from audiojax.models.layers import Sequential, max_pool
from audiojax.models.network import Network, Stage


class _Block(nn.Module):
    """Fields of both kinds of block.

    Attributes:
        features: channels of the 3x3 convolutions.
        stride: step of the block.
        conv: makes a convolution.
        norm: makes a normalization.
    """

    features: int
    stride: int
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    def shortcut(self, image: jax.Array, channels: int) -> jax.Array:
        """The image itself, or projected to the branch's channels and size."""
        if image.shape[-1] == channels:
            return image
        projection = partial(self.conv, channels, 1, self.stride)
        return Sequential((("0", projection), ("1", self.norm)), name="downsample")(
            image
        )


class BasicBlock(_Block):
    """Two 3x3 convolutions beside a shortcut."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H/stride,W/stride,features]."""
        conv, norm = partial(self.conv, self.features, 3, padding=1), self.norm
        branch = conv(stride=self.stride, name="conv1")(image)
        branch = nn.relu(norm(name="bn1")(branch))
        branch = norm(name="bn2")(conv(name="conv2")(branch))
        return nn.relu(branch + self.shortcut(image, self.features))


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, to four times the channels."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H/stride,W/stride,4*features]."""
        features, conv, norm = self.features, self.conv, self.norm
        branch = conv(features, 1, name="conv1")(image)
        branch = nn.relu(norm(name="bn1")(branch))
        branch = conv(features, 3, self.stride, padding=1, name="conv2")(branch)
        branch = nn.relu(norm(name="bn2")(branch))
        branch = norm(name="bn3")(conv(4 * features, 1, name="conv3")(branch))
        return nn.relu(branch + self.shortcut(image, 4 * features))


class ResNet(Network, kw_only=True):
    """ResNet; stages conv1, layer1, layer2, layer3, layer4.

    Fresh convolutions are He-normal by fan-out, as torchvision's.

    Attributes:
        block: `BasicBlock` or `Bottleneck`.
        depths: number of blocks in each of the four layers.
    """

    block: type[_Block]
    depths: tuple[int, ...]

    head = "fc"
    init_conv = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    def stages(self, conv: Callable[..., Any], norm: Callable[..., Any]) -> list[Stage]:
        """See `Network.stages`."""
        stem = [
            ("conv1", partial(conv, 64, 7, stride=2, padding=3)),
            ("bn1", norm),
            nn.relu,
            partial(max_pool, kernel=3, stride=2, padding=1),
        ]
        stages: list[Stage] = [("conv1", stem)]
        for index, depth in enumerate(self.depths):
            name, features = f"layer{index + 1}", 64 * 2**index
            strides = [1 if index == 0 else 2] + [1] * (depth - 1)
            blocks = tuple(
                (str(i), partial(self.block, features, stride, conv, norm))
                for i, stride in enumerate(strides)
            )
            stages.append((name, [(name, partial(Sequential, blocks))]))
        return stages
