"""Sound classification with ImageNet-pretrained CNNs in JAX and Flax."""

from audiojax import xla

__version__ = "0.1.0"

# Before anything is computed, whatever of the package is imported.
xla.avoid_wrong_sums()
