"""EfficientNet-Lite0 on ESC-50, five folds, by a modern recipe.

python -m audiojax.main --config configs/esc50_efficientnet.py \
    --config.data.source_dir=ESC-50-master

Not measured: ESC-50 itself was not at hand; the same recipe on its ten-class subset is
in esc10_efficientnet.py.
"""

from audiojax.config import Config
from configs import common


def get_config() -> Config:
    """Standardized input, shifted and masked; dropout; AdamW, warm-up and cosine."""
    config = common.get_config()
    config.model.name = "efficientnet_lite0"
    config.model.standardize = True
    config.model.dropout = 0.2
    config.data.stage = "spectrogram"
    config.augment = common.augment(shift=1.0, time_mask=0.1, mel_mask=0.1)
    config.optimizer.name = "adamw"
    config.optimizer.decay = "kernels"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 3.0
    config.epochs = 24
    return config
