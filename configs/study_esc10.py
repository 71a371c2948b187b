"""What ImageNet weights are worth to EfficientNet-Lite0 on ESC-10.

python -m audiojax.transfer --config configs/study_esc10.py \
    --config.data.source_dir=../shared/esc10

Fourteen trainings of each fold: pretrained, random, and every other stage as X:
frozen up to X, drawn anew from X, cut before X. Images are 64 x 250, half of the usual
ones, to take less time; smaller ones would leave the last stage too few pixels for
SVCCA.
"""

from audiojax.config import Config
from configs import common, esc10_efficientnet


def get_config() -> Config:
    """The recipe of `esc10_efficientnet.py`, and what is studied."""
    config = esc10_efficientnet.get_config()
    config.features.n_mels, config.features.frames = 64, 250
    # A study reports the last epoch alone.
    config.evaluate_every_epochs = 0
    config.study = common.study(
        stages=("conv_stem", "blocks.1", "blocks.3", "blocks.5", "conv_head")
    )
    return config
