"""The layers that every family is made of.

A layer maps an image [B,H,W,C] to an image. Parameters are float32 and are cast to
the layer's `dtype` to compute; normalization is always computed in float32.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from audiojax.models.convolution import convolve
from audiojax.models.normalization import affine, normalize
from audiojax.models.pooling import avg_pool as avg_pool
from audiojax.models.pooling import max_pool as max_pool

# Makes a layer, given its name and whatever else is open.
Factory = Callable[..., Any]
Padding = Literal["SAME"] | int | tuple[int, int]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class Conv(nn.Module):
    """Convolution without bias, of an image [B,H,W,C] to [B,H',W',features].

    Attributes:
        features: channels of the output.
        kernel: height and width of the kernel; one number for a square one.
        stride: step in both directions.
        padding: zeros added on each side in (height, width), as PyTorch counts them,
            or "SAME", TensorFlow's rule for the size of the image at hand.
        groups: 1, or the number of input channels for a depthwise convolution.
        init: initializer of the kernel [H,W,C/groups,features].
        dtype: type to compute in.
    """

    features: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding = 0
    groups: int = 1
    init: Callable[..., jax.Array] = nn.initializers.he_normal()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image [B,H',W',features] of type `dtype`."""
        shape = (*_pair(self.kernel), image.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.init, shape, jnp.float32)
        padding = self.padding
        if not isinstance(padding, str):
            padding = [(side, side) for side in _pair(padding)]
        return convolve(
            image.astype(self.dtype),
            kernel.astype(self.dtype),
            _pair(self.stride),
            padding,
            self.groups,
        )


class BatchNorm(nn.Module):
    """Batch normalization by PyTorch's rule, in float32.

    Training normalizes by the biased variance of the batch, and moves the running
    variance towards the unbiased one (Flax's own layer moves it towards the biased
    one).

    Attributes:
        train: normalize by the batch and update the running statistics, or normalize
            by the running statistics.
        epsilon: added to the variance.
        momentum: share of the old running statistics kept in one step (PyTorch calls
            one minus this momentum).
        axis_name: device axis over which a batch is spread, or None.
        dtype: type of the output.
    """

    train: bool
    epsilon: float = 1e-5
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the normalized image, of the same shape [B,H,W,C]."""
        shape = image.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        if not self.train:
            factor = scale * lax.rsqrt(var.value + self.epsilon)
            return affine(image, mean.value, factor, bias).astype(self.dtype)
        # No device axis is bound while the parameters are made.
        axis = None if self.is_initializing() else self.axis_name
        image, batch_mean, batch_var = normalize(image, scale, bias, self.epsilon, axis)
        if not self.is_initializing():
            devices = 1 if axis is None else lax.axis_size(axis)
            count = devices * image.size // image.shape[-1]
            unbiased = batch_var * (count / max(count - 1, 1))
            mean.value += (1 - self.momentum) * (batch_mean - mean.value)
            var.value += (1 - self.momentum) * (unbiased - var.value)
        return image.astype(self.dtype)


class Sequential(nn.Module):
    """Layers one after the other, each under its given name.

    Attributes:
        layers: pairs of a name and a function that makes the layer under it.
    """

    layers: Sequence[tuple[str, Factory]]

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Gives the image that the last layer gives."""
        for name, layer in self.layers:
            image = layer(name=name)(image)
        return image


class Block(nn.Module):
    """What is built of convolutions and normalizations.

    Attributes:
        conv: makes a convolution.
        norm: makes a normalization.
    """

    conv: Factory
    norm: Factory

    def branch(
        self,
        image: jax.Array,
        activation: Callable[[jax.Array], jax.Array],
        **convolutions: Factory,
    ) -> jax.Array:
        """Convolutions by their names, each normalized, with activations between."""
        for number, (name, convolution) in enumerate(convolutions.items(), 1):
            image = self.norm(name=f"bn{number}")(convolution(name=name)(image))
            if number < len(convolutions):
                image = activation(image)
        return image


def row_keys(key: jax.Array, size: int, axis_name: str | None) -> jax.Array:
    """A key for every row of a batch, the same however many devices share it.

    Args:
        key: that of the whole batch.
        size: rows on this device.
        axis_name: the device axis that shares the batch, or None.

    Returns:
        [size] keys.
    """
    first = 0 if axis_name is None else size * lax.axis_index(axis_name)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))


class Dropout(nn.Module):
    """Sets a share of each row's features to zero, drawing for each row apart.

    Flax's own draws for the whole batch at once, so that devices that share it would
    draw otherwise than one alone.

    Attributes:
        rate: the share, from 0 to below 1; what is kept is scaled up to make up for it.
        axis_name: the device axis that shares a batch, or None.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """Gives features [B,C]; needs the random stream "dropout" in training."""
        if not train or self.rate == 0:
            return features
        keys = row_keys(self.make_rng("dropout"), len(features), self.axis_name)
        keep = jax.vmap(
            lambda key: jax.random.bernoulli(key, 1 - self.rate, features.shape[1:])
        )(keys)
        return jnp.where(keep, features / (1 - self.rate), 0)


class DropPath(nn.Module):
    """Stochastic depth: Huang et al. 2016, arXiv 1603.09382.

    Sets the residual branch of a share of the rows to zero as a whole, drawing for each
    row apart.

    Attributes:
        train: whether to; needs the random stream "dropout" then.
        rate: the share, from 0 to below 1; branches that are kept are scaled up to make
            up for it.
        axis_name: the device axis that shares a batch, or None.
    """

    train: bool
    rate: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, branch: jax.Array) -> jax.Array:
        """Gives the branch [B,H,W,C]."""
        if not self.train or self.rate == 0:
            return branch
        ones = jnp.ones((len(branch), 1, 1, 1), branch.dtype)
        return branch * Dropout(self.rate, self.axis_name)(ones, train=True)
