"""What a training step costs with stages frozen."""

import argparse
from typing import Any

import jax
import numpy as np

from audiojax import classifier as classifiers
from audiojax import config as configs
from audiojax import models
from audiojax import task as tasks
from audiojax.config import Config
from audiojax.training import steps, trainer
from scripts.benchmark.common import take_turns

CLASSES = tuple(map(str, range(10)))


def print_frozen(config: Config, args: argparse.Namespace) -> None:
    """A table: steps of the whole network, of its later half, and of the head alone.

    They are of random images on one device, without augmentation. FLOPs are by XLA's
    count of the step before it is compiled; memory is what the optimizer keeps.
    """
    config = configs.at(config, {"model.pretrained": None})
    stages = models.stage_names(_classifier(config).network)
    choices: dict[str, str | None] = {"nothing": None}
    for stage in (stages[len(stages) // 2 - 1], stages[-1]):
        choices[f"up to {stage}"] = stage
    made = {
        name: Step(configs.at(config, {"model.freeze": stage}))
        for name, stage in choices.items()
    }
    seconds = take_turns({name: step.run for name, step in made.items()}, args.rounds)
    print(
        f"\n{config.model.name}, a batch of {config.batch_size}, median of "
        f"{args.rounds} rounds\n\n"
        "| frozen | step, ms | faster by | GFLOPs | optimizer, MB |\n"
        + "|---" * 5
        + "|"
    )
    for name, step in made.items():
        print(
            f"| {name} | {1000 * seconds[name]:.1f} "
            f"| {seconds['nothing'] / seconds[name]:.2f} "
            f"| {step.flops / 1e9:.3f} | {step.memory / 1e6:.3f} |"
        )


def _classifier(config: Config) -> classifiers.Classifier:
    return classifiers.create(config, CLASSES, tasks.of(False))


class Step:
    """A training step of a config's network, made again and again.

    Attributes:
        flops: of one step.
        memory: bytes that the optimizer keeps.
    """

    def __init__(self, config: Config):
        """Draws the network and a batch; compiles nothing yet."""
        classifier, rng = _classifier(config), np.random.default_rng(0)
        network, size = classifier.network, config.batch_size
        frozen = classifiers.frozen_stages(config, network)
        trainable = [x for x in models.stage_paths(network) if x not in frozen]
        optimizer = trainer.create_optimizer(config, network)
        variables = classifier.init(jax.random.key(0))
        trained, _ = models.split_params(network, variables["params"], trainable)
        self._state = steps.create_state(variables, optimizer, trained=trained)
        image = rng.normal(size=(size, *classifier.image_shape)).astype(np.float32)
        label = rng.integers(len(CLASSES), size=size)
        mask = np.ones(size, np.float32)
        batch = {"image": image, "label": label.astype(np.int32), "mask": mask}
        step = steps.make_train_step(classifier, optimizer, trainable=trainable)
        rest = batch, jax.random.key(0)
        cost: Any = jax.jit(step).lower(self._state, *rest).cost_analysis()
        self.flops: float = cost["flops"]
        kept = jax.tree.leaves(self._state.opt_state)
        self.memory = sum(leaf.nbytes for leaf in kept)
        self._step = jax.jit(step, donate_argnums=0)
        self._rest = jax.device_put(rest)

    def run(self) -> None:
        """One step, to its end."""
        self._state, _ = self._step(self._state, *self._rest)
        jax.block_until_ready(self._state)
