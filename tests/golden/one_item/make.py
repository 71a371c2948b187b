"""Made `workdir`, as the last version wrote it whose checkpoints were one item.

With that version's code (commit 0c73631) in PYTHONPATH, from an empty folder:

XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= python make.py
"""

from audiojax import sweep  # pyright: ignore[reportAttributeAccessIssue]
from tests import tiny

tiny.register()
config = tiny.get_config()
config.data.data_dir = "data"
config.sweep.folds, config.sweep.validation = (1,), "fold"
config.epochs, config.checkpoint_seconds = 3, 1e6
sweep.train(config.lock(), "workdir")
