"""What ImageNet weights give DenseNet-201 on ESC-50: the paper's analysis.

python -m audiojax.transfer --config configs/study_esc50_densenet.py \
    --config.data.source_dir=ESC-50-master

The same with the choices of the published repetition, to compare with its numbers:
--config.study.choices=repetition, in another --workdir. Not measured.
"""

from audiojax.config import Config
from configs import common, esc50_densenet


def get_config() -> Config:
    """The paper's recipe, and what is studied."""
    config = esc50_densenet.get_config()
    config.study = common.study(
        stages=("conv0", "denseblock1", "denseblock2", "denseblock3", "denseblock4"),
        # Where the published repetition compares features.
        layers=(
            "conv0.conv0",
            "denseblock1.denselayer2.conv2",
            "denseblock1.denselayer6.conv2",
            "denseblock2.denselayer12.conv2",
            "denseblock3.denselayer48.conv2",
        ),
    )
    return config
