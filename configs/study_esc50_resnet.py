"""What ImageNet weights give ResNet-50 on ESC-50: the paper's analysis.

python -m audiojax.transfer --config configs/study_esc50_resnet.py \
    --config.data.source_dir=ESC-50-master

The same with the choices of the published repetition, to compare with its numbers:
--config.study.choices=repetition, in another --workdir. Not measured.
"""

from audiojax.config import Config
from configs import common, esc50_resnet


def get_config() -> Config:
    """The paper's recipe, and what is studied."""
    config = esc50_resnet.get_config()
    config.study = common.study(
        stages=("conv1", "layer1", "layer2", "layer3", "layer4")
    )
    return config
