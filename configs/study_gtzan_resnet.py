"""What ImageNet weights give ResNet-50 on GTZAN: the paper's analysis.

python -m audiojax.transfer --config configs/study_gtzan_resnet.py \
    --config.data.source_dir=GTZAN

The same with the choices of the published repetition, to compare with its numbers:
--config.study.choices=repetition, in another --workdir. Not measured.

The fold is drawn, not the paper's; see `gtzan_resnet.py`.
"""

from audiojax.config import Config
from configs import gtzan_resnet, study_esc50_resnet


def get_config() -> Config:
    """The paper's recipe, and what is studied on ESC-50."""
    config = gtzan_resnet.get_config()
    config.study = study_esc50_resnet.get_config().study
    # Images are six times as wide, and have as many times the pixels.
    config.study.clips = 200
    return config
