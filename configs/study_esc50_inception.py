"""What ImageNet weights give Inception-v3 on ESC-50: the paper's analysis.

python -m audiojax.transfer --config configs/study_esc50_inception.py \
    --config.data.source_dir=ESC-50-master

The same with the choices of the published repetition, to compare with its numbers:
--config.study.choices=repetition, in another --workdir. Not measured.
"""

from audiojax.config import Config
from configs import common, esc50_inception


def get_config() -> Config:
    """The paper's recipe, and what is studied."""
    config = esc50_inception.get_config()
    config.study = common.study(
        stages=("Conv2d_1a_3x3", "Mixed_5b", "Mixed_6a", "Mixed_6e", "Mixed_7a"),
        # The last stage has twelve pixels for 2048 channels.
        clips=1000,
    )
    return config
