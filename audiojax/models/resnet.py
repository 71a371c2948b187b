"""Residual networks: He et al., "Deep Residual Learning", arXiv 1512.03385.

As in torchvision: the stride of a bottleneck is in its 3x3 convolution.
"""

from functools import partial

import flax.linen as nn
import jax

from audiojax.models.layers import Block, Factory, Sequential, max_pool
from audiojax.models.network import Network, Stage, block_stage, rising_drops


class ResidualBlock(Block):
    """Convolutions beside a shortcut, which is projected where they change the shape.

    Attributes:
        features: channels of the 3x3 convolutions.
        bottleneck: 1x1, 3x3 and 1x1 convolutions, to four times `features`, instead
            of two 3x3 ones.
        drop: makes the `DropPath` of the convolutions.
        stride: step of the block.
    """

    features: int
    bottleneck: bool
    drop: Factory
    stride: int

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
        branch = self.drop()(self.branch(image, nn.relu, **convolutions))
        if image.shape[-1] != channels:
            projection = partial(self.conv, channels, stride=self.stride)
            layers = (("0", projection), ("1", self.norm))
            image = Sequential(layers, name="downsample")(image)
        return nn.relu(branch + image)


class ResNet(Network, kw_only=True):
    """ResNet; stages conv1, layer1, layer2, layer3, layer4.

    Fresh convolutions are He-normal by fan-out, as torchvision's.

    Attributes:
        depths: number of blocks in each of the four layers.
        bottleneck: whether blocks are bottlenecks; see `ResidualBlock`.
    """

    depths: tuple[int, ...]
    bottleneck: bool = True

    head = "fc"
    residual = True
    init_conv = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    def stages(self, conv: Factory, norm: Factory, drop: Factory) -> list[Stage]:
        """See `Network.stages`."""
        stem = [
            ("conv1", partial(conv, 64, 7, stride=2, padding=3)),
            ("bn1", norm),
            nn.relu,
            partial(max_pool, kernel=3, stride=2, padding=1),
        ]
        stages: list[Stage] = [("conv1", stem)]
        drops = rising_drops(drop, self.drop_path, self.depths)
        for index, stage_drops in enumerate(drops):
            features, stride = 64 * 2**index, 1 if index == 0 else 2
            block = partial(ResidualBlock, conv, norm, features, self.bottleneck)
            stages.append(block_stage(f"layer{index + 1}", block, stage_drops, stride))
        return stages
