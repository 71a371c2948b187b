"""The paper's Inception-v3 on UrbanSound8K, ten folds.

python -m audiojax.main --config configs/urbansound8k_inception.py \
    --config.data.source_dir=UrbanSound8K

This is the paper's experiment whole, with its augmentation; the epoch that is reported
is the last one. Not measured.
"""

from audiojax.config import Config
from configs import urbansound8k_resnet


def get_config() -> Config:
    """The recipe of ResNet-50 with another network."""
    config = urbansound8k_resnet.get_config()
    config.model.name = "inception_v3"
    return config
