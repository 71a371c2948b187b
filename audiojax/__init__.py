"""Sound classification with ImageNet-pretrained CNNs in JAX and Flax."""

import importlib
import typing

from audiojax import xla

if typing.TYPE_CHECKING:
    from audiojax.predictor import load

__version__ = "0.1.0"

__all__ = ["__version__", "load"]

# Before anything is computed, whatever of the package is imported.
xla.avoid_wrong_sums()


def __getattr__(name: str) -> typing.Any:
    """Imports what is needed late: most who import a part need no other."""
    if name == "load":
        return importlib.import_module("audiojax.predictor").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
