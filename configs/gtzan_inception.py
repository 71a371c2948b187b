"""The paper's Inception-v3 on GTZAN, a fifth held out.

python -m audiojax.main --config configs/gtzan_inception.py \
    --config.data.source_dir=GTZAN

The fifth that is held out is drawn from the seed `data.seed`, not the paper's, which is
not published; it has clips of one piece or artist on both sides, so its scores are too
high. --config.data.split_dir=DIR takes published lists that avoid this.

This is the paper's experiment whole, with its augmentation; the epoch that is reported
is the last one. Not measured.
"""

from audiojax.config import Config
from configs import gtzan_resnet


def get_config() -> Config:
    """The recipe of ResNet-50 with another network."""
    config = gtzan_resnet.get_config()
    config.model.name = "inception_v3"
    return config
