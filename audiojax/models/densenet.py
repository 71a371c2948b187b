"""Densely connected networks: Huang et al., arXiv 1608.06993, as in torchvision."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiojax.models.layers import Block, Factory, avg_pool, max_pool
from audiojax.models.network import Network, Stage


class DenseLayer(Block):
    """A 1x1 and a 3x3 convolution, each after its normalization.

    Attributes:
        growth: channels of the output; the 1x1 convolution has four times as many.
    """

    growth: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H,W,growth]."""
        image = nn.relu(self.norm(name="norm1")(image))
        image = self.conv(4 * self.growth, name="conv1")(image)
        image = nn.relu(self.norm(name="norm2")(image))
        return self.conv(self.growth, 3, padding=1, name="conv2")(image)


class DenseBlock(nn.Module):
    """Layers that each see the block's input and the output of all layers before.

    Attributes:
        depth: number of layers.
        layer: makes a `DenseLayer`.
    """

    depth: int
    layer: Factory

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the input and all outputs, [B,H,W,C+depth*growth]."""
        for index in range(self.depth):
            new = self.layer(name=f"denselayer{index + 1}")(image)
            image = jnp.concatenate([image, new], axis=-1)
        return image


class Transition(Block):
    """Half the channels and half the size."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H/2,W/2,C/2]."""
        channels = image.shape[-1] // 2
        image = nn.relu(self.norm(name="norm")(image))
        return avg_pool(self.conv(channels, name="conv")(image), kernel=2, stride=2)


class DenseNet(Network, kw_only=True):
    """DenseNet; stages conv0, denseblock1, transition1, …, denseblock4, norm5.

    Fresh convolutions are He-normal by fan-in, as torchvision's.

    Attributes:
        depths: number of layers in each dense block.
        growth: channels that each layer adds; the stem has twice as many.
    """

    depths: tuple[int, ...]
    growth: int = 32

    head = "classifier"
    init_conv = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

    def stages(self, conv: Factory, norm: Factory, drop: Factory) -> list[Stage]:
        """See `Network.stages`."""
        layer = partial(DenseLayer, conv, norm, self.growth)
        stem = [
            ("features.conv0", partial(conv, 2 * self.growth, 7, stride=2, padding=3)),
            ("features.norm0", norm),
            nn.relu,
            partial(max_pool, kernel=3, stride=2, padding=1),
        ]
        stages: list[Stage] = [("conv0", stem)]
        for index, depth in enumerate(self.depths, start=1):
            stages.append(
                _stage(f"denseblock{index}", partial(DenseBlock, depth, layer))
            )
            if index < len(self.depths):
                transition = partial(Transition, conv, norm)
                stages.append(_stage(f"transition{index}", transition))
        return [*stages, ("norm5", [("features.norm5", norm), nn.relu])]


def _stage(name: str, make: Factory) -> Stage:
    return name, [(f"features.{name}", make)]
