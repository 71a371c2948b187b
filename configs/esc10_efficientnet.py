"""EfficientNet-Lite0 on ESC-10, five folds, twelve epochs.

python -m audiojax.main --config configs/esc10_efficientnet.py \
    --config.data.source_dir=../shared/esc10

The plain recipe; docs/recipe.md has it, as "before", beside that of esc10_best.py.
Its shifts, masks and dropout were chosen after looking at the first three test folds.
"""

from audiojax.config import Config
from configs import esc50_efficientnet


def get_config() -> Config:
    """The recipe of ESC-50, shorter, on its ten-class subset."""
    config = esc50_efficientnet.get_config()
    config.data.name = "esc10"
    config.epochs = 12
    return config
