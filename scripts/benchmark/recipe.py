"""One fold of a whole recipe, beside the same recipe in PyTorch."""

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import features
from audiojax.augment import Augment
from audiojax.config import Config
from audiojax.datasets import batches
from audiojax.errors import InputError
from audiojax.training import optimizer, sweep, trainer
from audiojax.training.feed import Data
from audiojax.workdir import Run
from scripts.benchmark.common import OURS, environment
from scripts.benchmark.models import torch_module

PEER = "PyTorch"
# What the twin in PyTorch does; a recipe that asks for more can't be compared.
KNOWN = {"shift", "time_mask", "mel_mask", "num_masks", "mixup"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--config", default="esc10_best", help="of configs/")
    parser.add_argument("--source_dir", type=Path, help="its data set's folder")
    parser.add_argument("--data_dir", type=Path, help="prepared data; default: none")
    parser.add_argument("--epochs", type=int, help="default: the config's")


def run(args: argparse.Namespace) -> None:
    """Wall time of a fold: training from prepared images, then the test clips.

    Ours is the command's own work, with checkpoints and metrics; the first fold
    compiles what the next one finds. PyTorch's is a plain loop of the same arithmetic,
    whose network begins at random, for its speed does not hang on the weights.
    """
    config = importlib.import_module(f"configs.{args.config}").get_config()
    with tempfile.TemporaryDirectory() as scratch:
        config.data.source_dir = args.source_dir and str(args.source_dir)
        config.data.data_dir = str(args.data_dir or scratch)
        config.epochs = args.epochs or config.epochs
        config.evaluate_every_epochs = 0
        recordings = sweep.load(config)
        data = trainer.open_data(config, recordings)
        ours = trainer.Trainer(config, data)
        workdir, fold = epath.Path(scratch) / "run", config.sweep.folds[0]
        contenders: dict[str, Callable[[], Any]] = {
            f"{OURS}, compiling too": lambda: ours.train([Run(fold, 0)], workdir),
            f"{OURS}, the next one": lambda: ours.train([Run(fold, 1)], workdir),
        }
        packages = ["jax"]
        split = ours.feed.split(fold)
        try:
            importlib.import_module("torch")
            check_known(config)
            packages.append("torch")
            contenders[PEER] = lambda: train_in_torch(
                config, data, split.train, split.test
            )
        except ImportError:
            print("torch can't be imported here: left out")
        print(environment(*packages))
        print(f"{args.config}, {config.epochs} epochs, {len(recordings)} clips")
        minutes = {name: _minutes(work) for name, work in contenders.items()}
        print(f"\n| a fold | minutes | {PEER} is 1 |\n|---|---|---|")
        for name, value in minutes.items():
            ratio = f"{value / minutes[PEER]:.2f}" if PEER in minutes else ""
            print(f"| {name} | {value:.2f} | {ratio} |")


def _minutes(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / 60


def check_known(config: Config) -> None:
    """Checks that the twin in PyTorch can do what the recipe asks for.

    Raises:
        InputError: if not.
    """
    if unknown := set(Augment(**config.augment).names) - KNOWN:
        raise InputError(
            f"the twin in PyTorch has no {', '.join(sorted(unknown))}; give a --config "
            "without"
        )
    recipe = config.optimizer
    if recipe.name != "adamw" or recipe.decay != "kernels" or recipe.layer_decay != 1:
        raise InputError(
            "the twin in PyTorch has AdamW alone, which decays kernels and has no "
            "layer_decay; give a --config of that"
        )


def train_in_torch(
    config: Config, data: Data, train: np.ndarray, test: np.ndarray
) -> None:
    """Trains by the recipe on the clips `train`, and classifies those of `test`."""
    import torch  # pyright: ignore[reportMissingImports]

    changes = Augment(**config.augment)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    torch.manual_seed(0)
    mean, std = features.image_statistics([np.asarray(data.images)[train]])
    images = (torch.tensor(np.array(data.images)) - mean) / std
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([clip.labels[0] for clip in data.info.clips])
    images, labels = images.to(device), labels.to(device)
    num_classes = data.info.num_classes
    network = torch_module(config.model.name, num_classes)
    network = network.to(device, memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(
            config.optimizer.ema_decay
        ),
        use_buffers=True,
    )
    steps = batches.num_batches(len(train), config.batch_size)
    updates = _optimizer(torch, config, network, steps)
    for _ in range(config.epochs):
        network.train()
        order = torch.tensor(train)[torch.randperm(len(train))]
        for chosen in order.split(config.batch_size):
            image, target = images[chosen], labels[chosen]
            target = torch.nn.functional.one_hot(target, num_classes).float()
            image, target = _changed(torch, changes, image, target)
            updates.zero_grad()
            loss = torch.nn.functional.cross_entropy(
                network(image),
                target,
                label_smoothing=config.optimizer.label_smoothing,
            )
            loss.backward()
            updates.step()
            average.update_parameters(network)
    average.eval()
    shifts = max(config.data.test_shifts, 1)
    with torch.inference_mode():
        for chosen in torch.tensor(test).split(config.batch_size):
            image, frames = images[chosen], images.shape[3]
            sum(average(image.roll(i * frames // shifts, 3)) for i in range(shifts))


def _optimizer(torch: Any, config: Config, network: Any, steps: int) -> Any:
    """AdamW with the recipe's schedule, stepped together; decays kernels alone."""
    recipe = optimizer.Recipe(**config.optimizer)
    rate = optimizer.learning_rate(recipe, steps, config.epochs)
    head = set(list(network.parameters())[-2:])
    groups = []
    for decays in (True, False):
        for is_head in (True, False):
            found = [
                weight
                for weight in network.parameters()
                if (weight.ndim > 1) == decays and (weight in head) == is_head
            ]
            groups.append(
                {
                    "params": found,
                    "weight_decay": recipe.weight_decay if decays else 0.0,
                    "lr": recipe.head_factor if is_head else 1.0,
                }
            )
    adam = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda n: float(np.asarray(rate(n)))
    )
    adam.register_step_post_hook(lambda *_: schedule.step())
    return adam


def _changed(torch: Any, changes: Augment, image: Any, target: Any) -> tuple[Any, Any]:
    """Images [B, C, mel, frames] and targets as the recipe changes them."""
    size, _, mel, frames = image.shape
    most = round(changes.shift * frames)
    image = torch.stack(
        [
            row.roll(int(torch.randint(-most, most + 1, ())), 2) if most else row
            for row in image
        ]
    )
    blank = image.mean((2, 3), keepdim=True)
    for axis, length, share in (
        (3, frames, changes.time_mask),
        (2, mel, changes.mel_mask),
    ):
        for _ in range(max(changes.num_masks, 1)):
            width = torch.randint(0, round(share * length) + 1, (size,))
            start = (torch.rand(size) * (length - width + 1)).long()
            place = torch.arange(length)[None]
            hidden = (place >= start[:, None]) & (place < (start + width)[:, None])
            hidden = hidden[:, None, None] if axis == 3 else hidden[:, None, :, None]
            image = torch.where(hidden.to(image.device), blank, image)
    if changes.mixup:
        beta = torch.distributions.Beta(changes.mixup, changes.mixup)
        share, other = beta.sample((size,)).to(image.device), torch.randperm(size)
        of_image = share[:, None, None, None]
        image = of_image * image + (1 - of_image) * image[other]
        target = share[:, None] * target + (1 - share[:, None]) * target[other]
    return image, target
