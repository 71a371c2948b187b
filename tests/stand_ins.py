"""Runs a module, as `python -m` does, with small stand-ins for what takes long.

python -m tests.stand_ins audiojax.main --config configs/esc50_resnet.py

Every network is the tiny one of the tests, under its own name and with weights of its
own, and of a config one epoch is trained, on images of 16 x 16, for the first two folds
and seeds. A study takes all stages of that network, a few clips and images of 32 x 32.
Flags, configs, data, files and all other code are the real ones.
"""

import functools
import json
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from audiojax import command, models, pretrained
from audiojax.config import Config
from tests.tiny import Tiny

REAL_PARSE = command.parse


class StandIn(Tiny):
    """The tiny network, with the field that Inception's weights ask for."""

    transform_input: bool = False


def write_weights(folder: Path) -> None:
    """Writes weights for every network of the table, for $AUDIOJAX_WEIGHTS."""
    image = jnp.zeros((1, 16, 16, 3))
    init = jax.jit(functools.partial(StandIn(num_classes=1000).init, train=False))
    variables = init(jax.random.key(0), image)
    line = {"source": "a test", "revision": "", "sha256": None, "license": "CC0-1.0"}
    line |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    folder.mkdir()
    (folder / "manifest.json").write_text(
        json.dumps(dict.fromkeys(models.MODELS, line))
    )
    for name in models.MODELS:
        pretrained.save(folder / f"{name}.safetensors", variables)


def shorten(config: Config) -> None:
    """Makes the training that a config describes take a second."""
    config.features.n_mels = config.features.frames = 16
    config.optimizer.warmup_epochs, config.epochs = 0.0, 1
    config.sweep.folds = config.sweep.folds[:2]
    config.sweep.seeds = config.sweep.seeds[:2]
    # Of the network that is stood in for: a stage's name, and residual blocks.
    config.model.freeze, config.model.drop_path = None, 0.0
    if "study" in config:
        config.features.n_mels = config.features.frames = 32
        config.study.update(stages=(), layers=(), clips=8)


def parse(config, argv):
    """Parses the flags as the command does, and shortens the config after that."""
    rest = REAL_PARSE(config, argv)
    if config is not None and config.value is not None:
        shorten(config.value)
    return rest


if __name__ == "__main__":
    models.MODELS.update(dict.fromkeys(models.MODELS, StandIn))
    command.parse = parse
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
