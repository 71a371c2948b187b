"""A network small enough to train in a test, and a config that uses it."""

from functools import partial

import flax.linen as nn

from audiojax import models
from audiojax.config import Config
from audiojax.models import Network
from configs import demo


class Tiny(Network):
    """Two convolutions with BatchNorm."""

    head = "fc"
    init_conv = nn.initializers.he_normal()

    def stages(self, conv, norm, drop):
        return [
            (
                "conv1",
                [
                    ("conv1", partial(conv, 8, 3, stride=4, padding=1)),
                    ("bn1", norm),
                    nn.relu,
                ],
            ),
            (
                "conv2",
                [
                    ("conv2", partial(conv, 16, 3, stride=2, padding=1)),
                    ("bn2", norm),
                    nn.relu,
                ],
            ),
        ]


def register() -> None:
    """Adds the network to the table, as one who writes a new family would."""
    models.MODELS["tiny"] = Tiny


def get_config() -> Config:
    """Synthetic sounds, small images, two folds: a run takes a second or two."""
    config = demo.get_config()
    config.model.name = "tiny"
    config.model.pretrained = None
    config.features.n_mels = 32
    config.features.frames = 32
    config.optimizer.learning_rate = 1e-2
    config.epochs = 2
    config.batch_size = 64
    config.sweep.folds = (1, 2)
    config.checkpoint_seconds = 0.0
    config.tensorboard = False
    return config
