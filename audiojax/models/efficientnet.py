"""EfficientNet-Lite: Tan and Le, "EfficientNet", arXiv 1905.11946, made plain.

EfficientNet without squeeze-and-excitation, with ReLU6 and an unscaled stem and head,
as in TensorFlow's `tpu/models/official/efficientnet/lite`; named as timm's
`tf_efficientnet_lite0` to 4. Padding is TensorFlow's "SAME".
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from audiojax.models.layers import Sequential, branch
from audiojax.models.network import Network, Stage

# Blocks, kernel, stride, expansion and channels of each stage of the smallest network.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

# The fan-in of one channel, which is its fan-out too.
_init_depthwise = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Block(nn.Module):
    """A depthwise and a 1x1 convolution, beside a shortcut if it fits.

    Attributes:
        features: channels of the output.
        kernel: size of the depthwise convolution.
        stride: its step.
        expansion: factor by which a 1x1 convolution before raises the channels; 1 for
            none.
        conv: makes a convolution.
        norm: makes a normalization.
    """

    features: int
    kernel: int
    stride: int
    expansion: int
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H/stride,W/stride,features]."""
        channels = image.shape[-1]
        inner = self.expansion * channels
        depthwise = partial(
            self.conv,
            inner,
            self.kernel,
            self.stride,
            padding="SAME",
            groups=inner,
            init=_init_depthwise,
        )
        last = partial(self.conv, self.features)
        if self.expansion == 1:
            convolutions = {"conv_dw": depthwise, "conv_pw": last}
        else:
            first = partial(self.conv, inner)
            convolutions = {"conv_pw": first, "conv_dw": depthwise, "conv_pwl": last}
        output = branch(image, self.norm, nn.relu6, **convolutions)
        fits = self.stride == 1 and channels == self.features
        return image + output if fits else output


class EfficientNetLite(Network, kw_only=True):
    """EfficientNet-Lite; stages conv_stem, blocks.0 to blocks.6, conv_head.

    Fresh convolutions are normal with variance 2 / fan-out, where a depthwise one
    counts the outputs of one channel, as TensorFlow's.

    Attributes:
        width: factor on the channels of the seven stages.
        depth: factor on the number of blocks of all but the first and last stage.
    """

    width: float
    depth: float

    head = "classifier"
    epsilon = 1e-3
    init_conv = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    def stages(self, conv: Callable[..., Any], norm: Callable[..., Any]) -> list[Stage]:
        """See `Network.stages`."""
        stem = partial(conv, 32, 3, stride=2, padding="SAME")
        head = partial(conv, 1280)
        return [
            ("conv_stem", [("conv_stem", stem), ("bn1", norm), nn.relu6]),
            *(self._stage(index, conv, norm) for index in range(len(_STAGES))),
            ("conv_head", [("conv_head", head), ("bn2", norm), nn.relu6]),
        ]

    def _stage(
        self, index: int, conv: Callable[..., Any], norm: Callable[..., Any]
    ) -> Stage:
        blocks, kernel, stride, expansion, channels = _STAGES[index]
        if 0 < index < len(_STAGES) - 1:
            blocks = math.ceil(self.depth * blocks)
        features = _round_channels(self.width * channels)
        layers = []
        for i in range(blocks):
            step = stride if i == 0 else 1
            block = partial(Block, features, kernel, step, expansion, conv, norm)
            layers.append((str(i), block))
        name = f"blocks.{index}"
        return name, [(name, partial(Sequential, layers))]


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
