"""EfficientNet-Lite: Tan and Le, "EfficientNet", arXiv 1905.11946, made plain.

EfficientNet without squeeze-and-excitation, with ReLU6 and an unscaled stem and head,
as in TensorFlow's `tpu/models/official/efficientnet/lite`; named as timm's
`tf_efficientnet_lite0` to 4. Padding is TensorFlow's "SAME".
"""

import math
from functools import partial

import flax.linen as nn
import jax

from audiojax.models.layers import Block, Factory
from audiojax.models.network import Network, Stage, block_stage, rising_drops

# Number of blocks, kernel, first stride, expansion and channels of each stage of the
# smallest network.
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


class LiteBlock(Block):
    """A depthwise and a 1x1 convolution, beside a shortcut if it fits.

    Attributes:
        features: channels of the output.
        kernel: size of the depthwise convolution.
        expansion: factor by which a 1x1 convolution before raises the channels; 1 for
            none.
        drop: makes the `DropPath` of the convolutions beside a shortcut.
        stride: step of the depthwise convolution.
    """

    features: int
    kernel: int
    expansion: int
    drop: Factory
    stride: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H/stride,W/stride,features]."""
        channels = image.shape[-1]
        inner = self.expansion * channels
        same = partial(self.conv, padding="SAME", groups=inner, init=_init_depthwise)
        depthwise = partial(same, inner, self.kernel, self.stride)
        last = partial(self.conv, self.features)
        if self.expansion == 1:
            convolutions = {"conv_dw": depthwise, "conv_pw": last}
        else:
            first = partial(self.conv, inner)
            convolutions = {"conv_pw": first, "conv_dw": depthwise, "conv_pwl": last}
        branch = self.branch(image, nn.relu6, **convolutions)
        fits = self.stride == 1 and channels == self.features
        return image + self.drop()(branch) if fits else branch


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
    residual = True
    epsilon = 1e-3
    init_conv = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    def stages(self, conv: Factory, norm: Factory, drop: Factory) -> list[Stage]:
        """See `Network.stages`."""
        stem = ("conv_stem", partial(conv, 32, 3, stride=2, padding="SAME"))
        stages: list[Stage] = [("conv_stem", [stem, ("bn1", norm), nn.relu6])]
        first, *inside, last = (depth for depth, *_ in _STAGES)
        depths = [first, *(math.ceil(self.depth * depth) for depth in inside), last]
        drops = rising_drops(drop, self.drop_path, depths)
        for index, (_, kernel, stride, expansion, channels) in enumerate(_STAGES):
            features = _round_channels(self.width * channels)
            block = partial(LiteBlock, conv, norm, features, kernel, expansion)
            stages.append(block_stage(f"blocks.{index}", block, drops[index], stride))
        head = ("conv_head", partial(conv, 1280))
        return [*stages, ("conv_head", [head, ("bn2", norm), nn.relu6])]


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
