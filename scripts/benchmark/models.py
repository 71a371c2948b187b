"""Speed and memory of the networks."""

import argparse
import contextlib
import ctypes
import functools
import importlib
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from audiojax import models
from scripts.benchmark.common import OURS, environment, take_turns

CLASSES = 50
LEARNING_RATE = 1e-3


class Network(NamedTuple):
    """A network that is ready to be timed.

    Attributes:
        train: takes one step on the batch, and returns when that is done.
        infer: computes the logits of the batch, and returns when that is done.
        train_bytes: measures what a step needs beyond what is held between steps.
        infer_bytes: the same of inference.
        start: seconds that compiling both took, or the first call of each.
    """

    train: Callable[[], Any]
    infer: Callable[[], Any]
    train_bytes: Callable[[], float]
    infer_bytes: Callable[[], float]
    start: float


def our_network(
    name: str, images: np.ndarray, labels: np.ndarray, precision: str
) -> Network:
    """The network of this project with fresh parameters, trained by plain SGD."""
    network = models.create(name, CLASSES, dtype=jnp.dtype(precision))
    image, label = jax.device_put((images, labels))
    forward = functools.partial(network.apply, train=False)
    initialize = jax.jit(functools.partial(network.init, train=False))
    variables = initialize(jax.random.key(0), image[:1])

    def train_step(variables, image, label):
        def loss(params):
            logits, updated = network.apply(
                {**variables, "params": params},
                image,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return losses.mean(), updated

        gradients, updated = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(
            lambda value, gradient: value - LEARNING_RATE * gradient,
            variables["params"],
            gradients,
        )
        return {"params": params, **updated}

    start = time.perf_counter()
    step = jax.jit(train_step, donate_argnums=0).lower(variables, image, label)
    step = step.compile()
    logits = jax.jit(forward).lower(variables, image).compile()
    start = time.perf_counter() - start

    def train():
        nonlocal variables
        variables = jax.block_until_ready(step(variables, image, label))

    return Network(
        train,
        lambda: logits(variables, image).block_until_ready(),
        lambda: _planned_bytes(step),
        lambda: _planned_bytes(logits),
        start,
    )


def _planned_bytes(compiled: Any) -> float:
    plan = compiled.memory_analysis()
    new = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return plan.temp_size_in_bytes + new


def torch_network(
    name: str, images: np.ndarray, labels: np.ndarray, precision: str, compiled: bool
) -> Network:
    """PyTorch's network of the same name, channels last, trained by plain SGD.

    That of torchvision, or of `efficientnet-lite-pytorch`. Weights are float32; in
    bfloat16 it runs under autocast.
    """
    import torch  # pyright: ignore[reportMissingImports]

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    # JAX multiplies float32 so too.
    torch.backends.cuda.matmul.allow_tf32 = True
    network = torch_module(name).to(device, memory_format=torch.channels_last)
    forward = torch.compile(network) if compiled else network
    image = torch.tensor(images.transpose(0, 3, 1, 2), device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    label = torch.tensor(labels, device=device)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)

    def autocast():
        return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def train():
        network.train()
        optimizer.zero_grad()
        with autocast():
            loss = torch.nn.functional.cross_entropy(forward(image), label)
        loss.backward()
        optimizer.step()
        wait()

    def infer():
        network.eval()
        with torch.inference_mode(), autocast():
            forward(image)
        wait()

    def peak_bytes(work: Callable[[], Any]) -> float:
        # Not held between steps: the gradients of the last one.
        optimizer.zero_grad()
        if device == "cpu":
            return _peak_resident_bytes(work)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before

    start = time.perf_counter()
    train()
    infer()
    start = time.perf_counter() - start
    return Network(
        train, infer, lambda: peak_bytes(train), lambda: peak_bytes(infer), start
    )


def torch_module(name: str, num_classes: int = CLASSES) -> Any:
    """PyTorch's network of that name, with fresh parameters."""
    import torch  # pyright: ignore[reportMissingImports]

    if name.startswith("efficientnet_lite"):
        from efficientnet_lite_pytorch import (  # pyright: ignore[reportMissingImports]
            EfficientNet,
        )

        return EfficientNet.from_name(name.replace("_", "-"), num_classes=num_classes)
    # A torchvision without compiled operators wants these declared to be imported.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
    import torchvision  # pyright: ignore[reportMissingImports]

    options = {"aux_logits": False} if name == "inception_v3" else {}
    return torchvision.models.get_model(name, num_classes=num_classes, **options)


def _peak_resident_bytes(work: Callable[[], Any]) -> float:
    """What a call makes the process hold at most beyond what it held; Linux alone."""
    if sys.platform != "linux":
        return math.nan

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(s.split()[1]) for s in lines if s.startswith(field))

    # Give back what earlier calls have freed, and forget the peak so far.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument(
        "--models",
        nargs="+",
        choices=models.MODELS,
        default=["resnet50", "densenet201", "efficientnet_lite0"],
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)


def run(args: argparse.Namespace) -> None:
    """Time and memory of training steps and inference: PyTorch's networks and ours."""
    # PyTorch is to find memory on the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    on_gpu = jax.default_backend() == "gpu"
    kinds = {"PyTorch": False} | ({"torch.compile": True} if on_gpu else {})
    packages = ["jax", "flax"]
    try:
        importlib.import_module("torch")
        packages.append("torch")
    except ImportError:
        print("torch can't be imported here: left out")
        kinds = {}
    print(environment(*packages))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batch, 128, 250, 3)).astype(np.float32)
    labels = rng.integers(CLASSES, size=args.batch)
    for name in args.models:
        for precision in ("float32", "bfloat16") if on_gpu else ("float32",):
            batch = (name, images, labels, precision)
            networks = {OURS: our_network(*batch)}
            for kind, compiled in kinds.items():
                try:
                    networks[kind] = torch_network(*batch, compiled)
                except ImportError as error:
                    print(f"{kind}'s {name} left out: {error}")
            print(f"\n{name}, {precision}, {args.batch} images of 128x250")
            print_networks(networks, args.repeats)


def print_networks(networks: dict[str, Network], repeats: int) -> None:
    """A Markdown table: seconds, how many times as long ours takes, memory."""
    steps = take_turns({n: network.train for n, network in networks.items()}, repeats)
    calls = take_turns({n: network.infer for n, network in networks.items()}, repeats)
    print(
        "\n| | training step, s | ours takes | it adds, MB "
        "| inference, s | ours takes | it adds, MB | to start, s |"
    )
    print("|---" * 8 + "|")
    for name, network in networks.items():
        print(
            f"| {name} "
            f"| {steps[name]:.3f} | {steps[OURS] / steps[name]:.2f} "
            f"| {network.train_bytes() / 1e6:.0f} "
            f"| {calls[name]:.3f} | {calls[OURS] / calls[name]:.2f} "
            f"| {network.infer_bytes() / 1e6:.0f} | {network.start:.1f} |"
        )
