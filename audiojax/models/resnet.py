"""Residual networks: He et al., "Deep Residual Learning", arXiv 1512.03385.

As in torchvision: the stride of a bottleneck is in its 3x3 convolution.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from audiojax.models.layers import Sequential, branch, max_pool
from audiojax.models.network import Network, Stage


class Block(nn.Module):
    """Convolutions beside a shortcut, which is projected where they change the shape.

    Attributes:
        features: channels of the 3x3 convolutions.
        stride: step of the block.
        bottleneck: 1x1, 3x3 and 1x1 convolutions, to four times `features`, instead
            of two 3x3 ones.
        conv: makes a convolution.
        norm: makes a normalization.
    """

    features: int
    stride: int
    bottleneck: bool
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H/stride,W/stride,features or 4*features]."""
        channels = (4 if self.bottleneck else 1) * self.features
        square = partial(self.conv, self.features, 3, padding=1)
        strided = partial(square, stride=self.stride)
        if self.bottleneck:
            first, last = (partial(self.conv, c) for c in (self.features, channels))
            convolutions = {"conv1": first, "conv2": strided, "conv3": last}
        else:
            convolutions = {"conv1": strided, "conv2": square}
        output = branch(image, self.norm, nn.relu, **convolutions)
        if image.shape[-1] != channels:
            projection = partial(self.conv, channels, stride=self.stride)
            layers = (("0", projection), ("1", self.norm))
            image = Sequential(layers, name="downsample")(image)
        return nn.relu(output + image)


class ResNet(Network, kw_only=True):
    """ResNet; stages conv1, layer1, layer2, layer3, layer4.

    Fresh convolutions are He-normal by fan-out, as torchvision's.

    Attributes:
        depths: number of blocks in each of the four layers.
        bottleneck: whether blocks are bottlenecks; see `Block`.
    """

    depths: tuple[int, ...]
    bottleneck: bool = True

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
                (str(i), partial(Block, features, stride, self.bottleneck, conv, norm))
                for i, stride in enumerate(strides)
            )
            stages.append((name, [(name, partial(Sequential, blocks))]))
        return stages
