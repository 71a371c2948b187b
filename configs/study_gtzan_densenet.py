"""What ImageNet weights give DenseNet-201 on GTZAN: the paper's analysis.

python -m audiojax.transfer --config configs/study_gtzan_densenet.py \
    --config.data.source_dir=GTZAN

The same with the choices of the published repetition, to compare with its numbers:
--config.study.choices=repetition, in another --workdir. Not measured.

The fold is drawn, not the paper's; see `gtzan_resnet.py`.
"""

from audiojax.config import Config
from configs import gtzan_densenet, study_esc50_densenet


def get_config() -> Config:
    """The paper's recipe, and what is studied on ESC-50."""
    config = gtzan_densenet.get_config()
    config.study = study_esc50_densenet.get_config().study
    # Images are six times as wide, and have as many times the pixels.
    config.study.clips = 200
    return config
