"""The paper's ResNet-50 on UrbanSound8K, ten folds.

python -m audiojax.main --config configs/urbansound8k_resnet.py \
    --config.data.source_dir=UrbanSound8K

This is the paper's experiment whole, with its augmentation; the epoch that is reported
is the last one. Not measured: published for this recipe, best epoch on the test fold,
84.76.
"""

from audiojax.config import Config
from configs import common


def get_config() -> Config:
    """The recipe of ESC-50 at 22.05 kHz; shorter clips stretched, as by the paper."""
    config = common.get_config()
    config.data.name = "urbansound8k"
    config.data.clip_seconds = 4.0
    config.data.clip_mode = "stretch"
    config.features = common.features("urbansound8k")
    config.sweep.folds = tuple(range(1, 11))
    return config
