"""Sound classification with ImageNet-pretrained CNNs in JAX and Flax."""

__version__ = "0.1.0"
