"""EfficientNet-Lite0 on ESC-10, five folds, twelve epochs.

python -m audiojax.main --config configs/esc10_efficientnet.py \
    --config.data.source_dir=../shared/esc10

Measured on 2 CPU cores: 93.25 (folds 93.75, 91.25, 91.25, 95.00, 95.00), 27 minutes;
with --config.model.pretrained=None 73.75 (76.25, 76.25, 73.75, 72.50, 70.00).
"""

from audiojax.config import Config
from configs import esc50_efficientnet


def get_config() -> Config:
    """The recipe of ESC-50, shorter, on its ten-class subset."""
    config = esc50_efficientnet.get_config()
    config.data.name = "esc10"
    config.epochs = 12
    return config
