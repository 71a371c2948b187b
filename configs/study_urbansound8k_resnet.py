"""What ImageNet weights give ResNet-50 on UrbanSound8K: the paper's analysis.

python -m audiojax.transfer --config configs/study_urbansound8k_resnet.py \
    --config.data.source_dir=UrbanSound8K

The same with the choices of the published repetition, to compare with its numbers:
--config.study.choices=repetition, in another --workdir. Not measured.
"""

from audiojax.config import Config
from configs import study_esc50_resnet, urbansound8k_resnet


def get_config() -> Config:
    """The paper's recipe, and what is studied on ESC-50."""
    config = urbansound8k_resnet.get_config()
    config.study = study_esc50_resnet.get_config().study
    return config
