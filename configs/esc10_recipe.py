"""Parts of `esc10_best.py`, left out and added, to choose from on other folds.

python -m audiojax.main --config configs/esc10_recipe.py:without_mixup \
    --config.data.source_dir=../shared/esc10 --workdir runs/without_mixup

After the colon stand parts that are left out or taken in, see `WITHOUT` and `WITH`,
with commas between; without any, all is as in the recipe. Images are 64 x 125, to try
more in the same time. What decides are the clips that are held out, compared by
`python -m scripts.ablation`, never those of the test folds. Measured in docs/recipe.md.
"""

from audiojax.config import Config
from configs import esc10_best

# Fields of the recipe's parts, and their values where a part is left out.
WITHOUT = {
    "longer": {"epochs": 12},
    "small_batch": {"batch_size": 32},
    "smoothing": {"optimizer.label_smoothing": 0.0},
    "mixup": {"augment.mixup": 0.0},
    "masks": {"augment.time_mask": 0.0, "augment.mel_mask": 0.0},
    "shift": {"augment.shift": 0.0},
    "dropout": {"model.dropout": 0.0},
    "average": {"optimizer.ema_decay": 0.0},
    "test_shifts": {"data.test_shifts": 0},
}
# Parts that are not in the recipe, and their values where one is taken in.
WITH = {
    "batch_of_16": {"batch_size": 16},
    "half_frozen": {"model.freeze": "blocks.2"},
    "cutmix": {"augment.cutmix": 1.0},
    "drop_path": {"model.drop_path": 0.1},
    "slow_body": {
        "optimizer.learning_rate": 3e-4,
        "optimizer.head_factor": 10.0,
    },
    "layer_decay": {"optimizer.layer_decay": 0.8},
    "waveforms": {
        "data.stage": "audio",
        "augment.pitch_shift": (-2, 2),
        "augment.time_stretch": (0.9, 1.2),
        "augment.gain": 6.0,
    },
    "more_masks": {
        "augment.num_masks": 2,
        "augment.time_mask": 0.15,
        "augment.mel_mask": 0.15,
    },
    "clipping": {"optimizer.clip_norm": 1.0},
}


def get_config(changed: str = "") -> Config:
    """All parts, or what differs from them in those named, with commas between."""
    config = esc10_best.get_config()
    config.features.frames = 125
    config.sweep.validation = "fold"
    parts = {f"without_{name}": fields for name, fields in WITHOUT.items()}
    parts |= {f"with_{name}": fields for name, fields in WITH.items()}
    for part in filter(None, changed.split(",")):
        if part not in parts:
            raise ValueError(
                f"no part {part!r} of the recipe; give one of {list(parts)}"
            )
        config.update_from_flattened_dict(parts[part])
    return config
