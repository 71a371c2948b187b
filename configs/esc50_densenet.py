"""The paper's DenseNet-201 on ESC-50, five folds.

python -m audiojax.main --config configs/esc50_densenet.py \
    --config.data.source_dir=ESC-50-master

This is the paper's experiment whole, with its augmentation; the epoch that is reported
is the last one. Not measured: published for this recipe, an ensemble with the best
epoch on the test fold, 92.89; an independent repetition at the last epoch, 89.60 for
single networks and, of five seeds on fold 1, 90.0 to 93.75 and 94.0 for their ensemble.
"""

from audiojax.config import Config
from configs import esc50_resnet


def get_config() -> Config:
    """The recipe of ResNet-50 with another network."""
    config = esc50_resnet.get_config()
    config.model.name = "densenet201"
    return config
