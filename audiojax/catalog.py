"""Published weights: which there are, what they expect of images, where they lie.

A file is looked for in the weights folders, whose `manifest.json` holds its record, and
then on the Hugging Face hub, for which the table `RECORDS` holds it.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiojax.errors import InputError

Triple = tuple[float, float, float]

_IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclasses.dataclass(frozen=True)
class Record:
    """Where weights come from and what they expect.

    Attributes:
        source: repository on the Hugging Face hub, or for a converted file its origin.
        revision: revision of the source.
        sha256: sum of the file, or None where it is not known.
        license: SPDX name.
        mean: mean of the images in training, a channel each, for pixels in 0..1.
        std: their standard deviation.
        options: fields of the network that these weights need.
    """

    source: str
    revision: str
    sha256: str | None
    license: str
    mean: Triple
    std: Triple
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# Revision and sum where they are known, by the network's name.
_PINS: dict[str, tuple[str, str | None]] = {
    "resnet18": (
        "bbd144b3e5565108aad885f145491d11bc6ce807",
        "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    ),
    "resnet34": (
        "1b7b21cca82ff974d341713f777bf740c2db38c4",
        "0bb82595a564991a9d424708b33f5d843f5aaed7f6c0886ff10849ff97022235",
    ),
    "resnet50": (
        "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    ),
    "densenet121": (
        "f0d0f2698a02cb133b09d48396db6e1e46fe9f3b",
        "c894c6d9caa317a8ca1942986dee7a16a86c77734a4d691d2abe05389cfef358",
    ),
    "inception_v3": (
        "main",
        "9c452c63a67fd03a38a78c401ba12d4be0e926df63c93403de3a29f6df20fefb",
    ),
}


def _published(name: str) -> Record:
    pin = _PINS.get(name, ("main", None))
    if name.startswith("efficientnet"):
        return Record(f"timm/tf_{name}.in1k", *pin, "Apache-2.0", *_HALF)
    options = {"transform_input": True} if name == "inception_v3" else {}
    return Record(f"timm/{name}.tv_in1k", *pin, "BSD-3-Clause", *_IMAGENET, options)


# What the hub has, by the network's name: the file model.safetensors of each source.
RECORDS = {
    name: _published(name)
    for name in (
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
        "inception_v3",
        *(f"efficientnet_lite{size}" for size in range(5)),
    )
}


def weights_dirs() -> list[Path]:
    """Folders that are searched for NAME.safetensors, the first hit counts.

    They are $AUDIOJAX_WEIGHTS, if it is set, and `weights/` of the repository, or of
    the package where a wheel was installed.
    """
    named = os.environ.get("AUDIOJAX_WEIGHTS")
    package = Path(__file__).resolve().parent
    places = [folder / "weights" for folder in (package, package.parent)]
    ours = next((place for place in places if place.is_dir()), places[-1])
    return [*([Path(named)] if named else []), ours]


def options(weights: str | Path) -> Mapping[str, Any]:
    """Gives the fields of the network that weights need, without fetching them.

    Args:
        weights: as in `pretrained.load`.
    """
    if isinstance(weights, Path) or weights.endswith(".safetensors"):
        return locate(weights)[1].options
    return RECORDS[weights].options if weights in RECORDS else {}


def locate(weights: str | Path) -> tuple[Path, Record]:
    """Finds the file, fetched if need be, and its record.

    Args:
        weights: as in `pretrained.load`.

    Raises:
        InputError: there are no weights of that name, or they cannot be had.
    """
    if isinstance(weights, Path) or weights.endswith(".safetensors"):
        path = Path(weights)
        # A file that no manifest lists is taken to be the network's of its name.
        known = RECORDS.get(path.stem, Record("", "", None, "", *_IMAGENET))
        own = dataclasses.replace(known, source=str(path), revision="", sha256=None)
        return path, _listed(path) or own
    for folder in weights_dirs():
        path = folder / f"{weights}.safetensors"
        listed = _listed(path) or RECORDS.get(weights)
        if path.exists() and listed:
            return path, listed
    if weights not in RECORDS:
        raise InputError(
            f"unknown weights {weights!r}; the known ones are: {', '.join(RECORDS)}, "
            "or the path of a .safetensors file"
        )
    return _download(weights), RECORDS[weights]


def _listed(path: Path) -> Record | None:
    """What the manifest beside the file says of it."""
    manifest = path.with_name("manifest.json")
    entries = json.loads(manifest.read_text()) if manifest.exists() else {}
    if (entry := entries.get(path.stem)) is None:
        return None
    if "licence" in entry:  # as older manifests spell it
        entry["license"] = entry.pop("licence")
    return Record(**entry | {"mean": tuple(entry["mean"]), "std": tuple(entry["std"])})


def _download(name: str) -> Path:
    source, revision = RECORDS[name].source, RECORDS[name].revision
    by_hand = (
        f"put the file model.safetensors of {source} on the Hugging Face hub at "
        f"{weights_dirs()[0] / name}.safetensors"
    )
    try:
        # Not needed where the file is at hand.
        import huggingface_hub as hub  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            f"no weights of {name} here: install huggingface_hub, or {by_hand}"
        ) from None
    try:
        return Path(hub.hf_hub_download(source, "model.safetensors", revision=revision))
    # The kinds of its errors differ between its versions and their HTTP libraries.
    except Exception as error:
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"no weights of {name} here, and the download failed ({cause}): try again "
            f"with a network, or {by_hand}"
        ) from error
