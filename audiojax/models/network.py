"""What the families have in common: named stages, pooling and the head."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.typing import DTypeLike

from audiojax.errors import InputError
from audiojax.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    DropPath,
    Factory,
    Sequential,
)

# A path in the published checkpoint with what makes the layer there, or a function
# without parameters.
Layer = tuple[str, Factory] | Callable[[jax.Array], jax.Array]
Stage = tuple[str, Sequence[Layer]]

# The matrix of PyTorch's linear layer: uniform within one over the root of its inputs.
_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Network(nn.Module):
    """A convolutional network: stages, the mean over the image, dropout, the head.

    The stages are one list, from which features are captured, the network is cut,
    run in part, and its parameters are told apart (`stage_paths`).

    Attributes:
        num_classes: number of logits.
        dropout: share of pooled features set to zero in training.
        dtype: type to compute in. Parameters, batch statistics, pooled features and
            logits are float32.
        batch_norm_momentum: share of the running statistics kept in one step.
        axis_name: device axis that shares a batch, or None: batch statistics are
            averaged over it.
        cut: name of the first stage that goes, and all after it with it; None keeps
            all. The head then works on the channels of the last stage that is left.
        fixed_batch_norm: names of the stages whose BatchNorm normalizes by the running
            statistics in training too, and leaves them as they are.
        drop_path: rate at which training drops the residual branch of the last block,
            rising evenly from 0 for the first; see `DropPath`.
        remat: whether the gradient computes what is inside of a stage once more,
            instead of keeping it from the forward pass (Chen et al. 2016, arXiv
            1604.06174): less memory, more time.
        he_fan_out: whether fresh convolutions are He-normal by fan-out (He et al.
            2015, arXiv 1502.01852), instead of by the family's own rule.
    """

    num_classes: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    batch_norm_momentum: float = 0.9
    axis_name: str | None = None
    cut: str | None = None
    fixed_batch_norm: tuple[str, ...] = ()
    drop_path: float = 0.0
    remat: bool = False
    he_fan_out: bool = False

    head: ClassVar[str]
    residual: ClassVar[bool] = False
    epsilon: ClassVar[float] = 1e-5
    init_conv: ClassVar[Callable[..., jax.Array]]

    def stages(self, conv: Factory, norm: Factory, drop: Factory) -> list[Stage]:
        """The whole network before pooling: names of stages and their layers.

        Args:
            conv: makes a `Conv` of this network's type.
            norm: makes a `BatchNorm` of this network's type and mode.
            drop: makes a `DropPath` of this network's mode, of a given rate. A family
                that has residual branches to give it says so by `residual`.
        """
        raise NotImplementedError

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        *,
        train: bool,
        after: str | None = None,
        until: str | None = None,
    ) -> jax.Array:
        """Gives the logits [B,num_classes] of images, in float32.

        Args:
            image: [B,H,W,3]; the output of stage `after` if that is given.
            train: normalize by the batch, update `batch_stats`, drop out (needs the
                random stream "dropout" if `dropout` or `drop_path` is not 0).
            after: run only what follows this stage.
            until: give the output [B,H',W',C] of this stage and run nothing after it.

        With the collection "stages" mutable, its variable "outputs" receives the
        output of each stage, as a dict by the stages' names.

        Raises:
            InputError: there is no stage of that name.
        """
        init = _he_fan_out if self.he_fan_out else type(self).init_conv
        conv = partial(Conv, dtype=self.dtype, init=init)
        norm = partial(
            BatchNorm,
            epsilon=self.epsilon,
            momentum=self.batch_norm_momentum,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        drop = partial(DropPath, train, axis_name=self.axis_name)
        stages = _kept_stages(self, conv, partial(norm, train=train), drop)
        fixed = _kept_stages(self, conv, partial(norm, train=False), drop)
        stages |= {name: fixed[name] for name in self.fixed_batch_norm}
        first = 0 if after is None else _position(stages, after) + 1
        last = len(stages) - 1 if until is None else _position(stages, until)
        remat = self.remat and train and not self.is_initializing()
        groups: dict[str, _Group] = {}
        outputs = {}
        for name in list(stages)[first : last + 1]:
            # What is made inside of one `nn.remat` can't be used in another.
            run = partial(_run, stages[name], {} if remat else groups)
            image = (nn.remat(run) if remat else run)(self, image)
            outputs[name] = image
        if not self.is_initializing():
            self.sow("stages", "outputs", outputs, lambda _, new: new, dict)
        if until is not None:
            return image
        features = jnp.mean(image.astype(jnp.float32), axis=(1, 2))
        features = Dropout(self.dropout, self.axis_name)(features, train=train)
        return nn.Dense(self.num_classes, kernel_init=_linear, name=self.head)(features)

    def _apply(
        self, layer: Layer, image: jax.Array, groups: dict[str, "_Group"]
    ) -> jax.Array:
        if not isinstance(layer, tuple):
            return layer(image)
        path, make = layer
        group, _, name = path.rpartition(".")
        if not group:
            return make(name=name)(image)
        if group not in groups:
            groups[group] = _Group(name=group)
        return groups[group](image, name, make)


def _run(
    layers: Sequence[Layer],
    groups: dict[str, "_Group"],
    network: Network,
    image: jax.Array,
) -> jax.Array:
    """What the layers of one stage make of an image."""
    for layer in layers:
        image = network._apply(layer, image, groups)
    return image


class _Group(nn.Module):
    """A first part that the paths of several layers share."""

    @nn.compact
    def __call__(self, image: jax.Array, name: str, make: Factory) -> jax.Array:
        return make(name=name)(image)


def _kept_stages(
    network: Network, conv: Factory, norm: Factory, drop: Factory
) -> dict[str, Sequence[Layer]]:
    stages = dict(network.stages(conv, norm, drop))
    if network.cut is None:
        return stages
    kept = list(stages)[: _position(stages, network.cut)]
    if not kept:
        raise InputError(
            f"a network cut before its first stage {network.cut!r} has none left; "
            f"choose one of {', '.join(list(stages)[1:])}"
        )
    return {name: stages[name] for name in kept}


def block_stage(
    name: str, block: Factory, drops: Sequence[Factory], stride: int
) -> Stage:
    """A stage of blocks 0, 1, … one after the other, the first with the stride.

    Args:
        name: of the stage.
        block: makes a block, given its `drop` and its `stride`.
        drops: what each block drops its branch by, as `rising_drops` gives them.
        stride: that of the first block.
    """
    strides = [stride] + [1] * (len(drops) - 1)
    blocks = [
        (str(i), partial(block, drop=drops[i], stride=s)) for i, s in enumerate(strides)
    ]
    return name, [(name, partial(Sequential, blocks))]


def rising_drops(
    drop: Factory, last: float, depths: Sequence[int]
) -> list[list[Factory]]:
    """For each block of each stage, what makes its `DropPath`.

    The rate rises evenly over all blocks, from 0 for the first to `last`.

    Args:
        drop: makes a `DropPath` of a given rate.
        last: rate of the last block.
        depths: number of blocks in each stage.
    """
    step = last / max(sum(depths) - 1, 1)
    firsts = itertools.accumulate(depths, initial=0)
    return [
        [partial(drop, rate=step * (first + i)) for i in range(depth)]
        for first, depth in zip(firsts, depths, strict=False)
    ]


def _position(stages: Mapping[str, Any], name: str) -> int:
    if name not in stages:
        raise InputError(
            f"the network has no stage {name!r}; its stages are: {', '.join(stages)}"
        )
    return list(stages).index(name)


def stage_names(network: Network) -> tuple[str, ...]:
    """The names of the stages that give an image, in order: all but the head."""
    return tuple(stage_paths(network))[:-1]


def stages_from(network: Network, name: str) -> tuple[str, ...]:
    """The names of a stage and of all that follow it, to the head.

    Raises:
        InputError: there is no stage of that name.
    """
    stages = stage_paths(network)
    return tuple(stages)[_position(stages, name) :]


def split_params(
    network: Network, params: Mapping[str, Any], stages: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters, or batch statistics, of some stages, and those of the others.

    Args:
        network: whose they are.
        params: nested by the parts of their paths.
        stages: names of stages, as in `stage_paths`.

    Returns:
        Two trees that hold each leaf once; `merge_params` makes them one again.
    """
    paths = stage_paths(network)
    beginnings = [tuple(p.split(".")) for name in stages for p in paths[name]]
    chosen, others = {}, {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        inside = any(path[: len(start)] == start for start in beginnings)
        (chosen if inside else others)[path] = leaf
    return traverse_util.unflatten_dict(chosen), traverse_util.unflatten_dict(others)


def merge_params(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a tree, as `split_params` gives them, as one."""
    flat: dict[Any, Any] = {}
    for part in parts:
        flat |= traverse_util.flatten_dict(part)
    return traverse_util.unflatten_dict(flat)


def stage_paths(network: Network) -> dict[str, tuple[str, ...]]:
    """Which parameters belong to which stage, in the network's order.

    Gives for each stage the paths of its layers, their parts joined by points, such
    as `{"conv1": ("conv1", "bn1"), "layer1": ("layer1",), …, "head": ("fc",)}`: a
    parameter belongs to a stage if its path begins with one of them. The last entry
    is the head's. A cut network has its remaining stages alone.
    """
    paths = {
        name: tuple(layer[0] for layer in layers if isinstance(layer, tuple))
        for name, layers in _kept_stages(network, Conv, BatchNorm, DropPath).items()
    }
    return paths | {"head": (network.head,)}
