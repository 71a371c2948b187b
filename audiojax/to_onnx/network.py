"""A network as an ONNX graph: what JAX traces of it, operator by operator.

So every family, and each that is added, is exported by the code that trains it. The
trace is of the forms for accelerators, which are plain convolutions. Images are
[B, C, H, W] here, as ONNX has them, where JAX has [B, H, W, C].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from audiojax.classifier import Classifier
from audiojax.errors import InputError
from audiojax.models.forms import forced
from audiojax.pretrained import Variables
from audiojax.to_onnx.graph import Graph

# What becomes of numbers that are known before the network runs.
_KNOWN: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
# Operators that are their inner function.
_WRAPPERS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@dataclasses.dataclass(frozen=True)
class _Linear:
    """A convolution or a matrix product whose output nobody has asked for yet.

    Attributes:
        operator: "Conv" or "Gemm".
        input: name of the tensor that it is of.
        weight: [features, ...].
        attributes: of the operator.
    """

    operator: str
    input: str
    weight: np.ndarray
    attributes: dict[str, Any]


@dataclasses.dataclass
class _Tensor:
    """`clip(source * scale + shift, lower, upper)`, computed when it is asked for.

    By then a normalization is part of the convolution before it.

    Attributes:
        source: name of a tensor, or what makes it.
        scale: a number, or one a channel.
        shift: the same.
        lower: the least value.
        upper: the greatest.
        name: of the tensor, once it is computed.
    """

    source: str | _Linear
    scale: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(1))
    shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1))
    lower: float = -np.inf
    upper: float = np.inf
    name: str | None = None

    @property
    def clipped(self) -> bool:
        return self.lower > -np.inf or self.upper < np.inf


_Value = _Tensor | np.ndarray


def add_logits(
    graph: Graph, image: str, classifier: Classifier, variables: Variables
) -> str:
    """Adds `Classifier.logits`.

    Args:
        graph: gets the operators.
        image: log-mel images [B, C, mel, frames], not standardized.
        classifier: whose network it is; it computes in float32.
        variables: as `Classifier.logits` takes them.

    Returns:
        Logits [B, classes].

    Raises:
        InputError: the network has an operator that this knows no ONNX for.
    """
    shape = (*export.symbolic_shape("batch"), *classifier.image_shape)
    with forced("native"):
        traced = jax.make_jaxpr(classifier.logits)(
            variables, jax.ShapeDtypeStruct(shape, jnp.float32)
        )
    known = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
    (logits,) = _Writer(graph).outputs(traced, [*known, _Tensor(image)])
    return _Writer(graph).name(logits)


class _Writer:
    """Writes traced functions to a graph."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def outputs(self, traced: ClosedJaxpr, inputs: Sequence[_Value]) -> list[_Value]:
        """What a traced function gives for inputs."""
        jaxpr: Jaxpr = traced.jaxpr
        values: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        values |= zip(jaxpr.constvars, map(np.asarray, traced.consts), strict=True)

        def read(variable: Any) -> _Value:
            if isinstance(variable, Literal):
                return np.asarray(variable.val)
            return values[variable]

        for equation in jaxpr.eqns:
            arguments = [read(variable) for variable in equation.invars]
            found = self.equation(equation, arguments)
            values |= zip(equation.outvars, found, strict=True)
        return [read(variable) for variable in jaxpr.outvars]

    def equation(self, equation: Any, inputs: list[_Value]) -> list[_Value]:
        """What one operator gives."""
        operator, parameters = equation.primitive.name, equation.params
        if operator in _WRAPPERS:
            return self.outputs(parameters[_WRAPPERS[operator]], inputs)
        if operator in {"broadcast_in_dim", "reshape"}:
            return [_reshaped(equation, inputs[0])]
        known = all(isinstance(value, np.ndarray) for value in inputs)
        if known and operator in _KNOWN:
            return [_KNOWN[operator](*inputs)]
        method = getattr(self, f"_{operator}", None)
        if known or method is None:
            raise _unknown(equation)
        return [method(equation, *inputs)]

    def name(self, value: _Value) -> str:
        """The name of a tensor, which is computed from here on."""
        assert isinstance(value, _Tensor)
        if value.name is not None:
            return value.name
        source, add = value.source, self.graph.add
        scale, shift = value.scale, value.shift
        if isinstance(source, _Linear):
            features = len(source.weight)
            scale = np.broadcast_to(scale, features)
            scale = scale.reshape(features, *[1] * (source.weight.ndim - 1))
            name = add(
                source.operator,
                source.input,
                self.graph.constant(source.weight * scale),
                self.graph.constant(np.broadcast_to(shift, features)),
                **source.attributes,
            )
        else:
            name = source
            if np.any(scale != 1):
                name = add("Mul", name, self._by_channel(scale))
            if np.any(shift != 0):
                name = add("Add", name, self._by_channel(shift))
        if value.clipped:
            if (value.lower, value.upper) == (0, np.inf):
                name = add("Relu", name)
            else:
                bounds = map(self.graph.constant, (value.lower, value.upper))
                name = add("Clip", name, *bounds)
        value.name = name
        return name

    def _by_channel(self, vector: np.ndarray) -> str:
        """A constant for an image [B,C,H,W]."""
        return self.graph.constant(vector.reshape(-1, 1, 1))

    def _affine(self, value: _Value, scale: Any, shift: Any) -> _Tensor:
        tensor = self._unclipped(value)
        shifted = tensor.shift * scale + shift
        return _Tensor(tensor.source, tensor.scale * scale, shifted)

    def _unclipped(self, value: _Value) -> _Tensor:
        assert isinstance(value, _Tensor)
        return _Tensor(self.name(value)) if value.clipped else value

    def _add(self, equation: Any, a: _Value, b: _Value) -> _Tensor:
        if isinstance(a, np.ndarray):
            a, b = b, a
        if isinstance(b, np.ndarray):
            return self._affine(a, 1.0, _channels(equation, b))
        return _Tensor(self.graph.add("Add", self.name(a), self.name(b)))

    def _sub(self, equation: Any, a: _Value, b: _Value) -> _Tensor:
        if isinstance(a, np.ndarray):
            return self._affine(b, -1.0, _channels(equation, a))
        return self._affine(a, 1.0, -_channels(equation, b))

    def _mul(self, equation: Any, a: _Value, b: _Value) -> _Tensor:
        if isinstance(a, np.ndarray):
            a, b = b, a
        return self._affine(a, _channels(equation, b), 0.0)

    def _div(self, equation: Any, a: _Value, b: _Value) -> _Tensor:
        # Not times one over it: a sum over its count is to be the mean to the bit.
        tensor, by = self._unclipped(a), _channels(equation, b)
        return _Tensor(tensor.source, tensor.scale / by, tensor.shift / by)

    def _max(self, equation: Any, a: _Value, b: _Value) -> _Tensor:
        """Of a tensor and a number, as of ReLU."""
        tensor, bound = self._with_bound(equation, a, b)
        return dataclasses.replace(tensor, lower=bound)

    def _min(self, equation: Any, a: _Value, b: _Value) -> _Tensor:
        """Of a tensor and a number, as of ReLU6 after its maximum."""
        tensor, bound = self._with_bound(equation, a, b)
        if tensor.lower > bound:
            raise _unknown(equation)
        return dataclasses.replace(tensor, upper=bound)

    def _with_bound(self, equation: Any, a: _Value, b: _Value) -> tuple[_Tensor, float]:
        if isinstance(a, np.ndarray):
            a, b = b, a
        if not isinstance(b, np.ndarray) or b.size != 1:
            raise _unknown(equation)
        assert isinstance(a, _Tensor)
        done = a.upper < np.inf or a.name is not None
        return (_Tensor(self.name(a)) if done else a), float(b)

    def _conv_general_dilated(
        self, equation: Any, image: _Value, kernel: np.ndarray
    ) -> _Tensor:
        p = equation.params
        numbers = p["dimension_numbers"]
        plain = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == _NHWC
        if not plain or p["lhs_dilation"] != (1, 1) or p["batch_group_count"] != 1:
            raise _unknown(equation)
        attributes = {
            "strides": p["window_strides"],
            "pads": _pads(p["padding"]),
            "dilations": p["rhs_dilation"],
            "group": p["feature_group_count"],
        }
        weight = kernel.transpose(3, 2, 0, 1)
        return _Tensor(_Linear("Conv", self.name(image), weight, attributes))

    def _dot_general(self, equation: Any, a: _Value, matrix: np.ndarray) -> _Tensor:
        if equation.params["dimension_numbers"] != (((1,), (0,)), ((), ())):
            raise _unknown(equation)
        return _Tensor(_Linear("Gemm", self.name(a), matrix.T, {"transB": 1}))

    def _concatenate(self, equation: Any, *images: _Value) -> _Tensor:
        if equation.params["dimension"] != 3:
            raise _unknown(equation)
        return _Tensor(self.graph.add("Concat", *map(self.name, images), axis=1))

    def _reduce_window_max(self, equation: Any, image: _Value) -> _Tensor:
        return _Tensor(self.graph.add("MaxPool", self.name(image), **_window(equation)))

    def _reduce_window_sum(self, equation: Any, image: _Value) -> _Tensor:
        """As a mean times the size of the window; what divides by it meets that."""
        window = _window(equation)
        name = self.graph.add(
            "AveragePool", self.name(image), count_include_pad=1, **window
        )
        return _Tensor(name, np.full(1, float(np.prod(window["kernel_shape"]))))

    def _reduce_sum(self, equation: Any, image: _Value) -> _Tensor:
        """Of all pixels, as their mean times their number."""
        (variable,) = equation.invars
        if tuple(equation.params["axes"]) != (1, 2) or len(variable.aval.shape) != 4:
            raise _unknown(equation)
        mean = self.graph.add("GlobalAveragePool", self.name(image))
        pixels = variable.aval.shape[1] * variable.aval.shape[2]
        return _Tensor(self.graph.add("Flatten", mean), np.full(1, float(pixels)))


def _reshaped(equation: Any, value: _Value) -> np.ndarray:
    """A constant in a new shape, of the same numbers."""
    if not isinstance(value, np.ndarray):
        raise _unknown(equation)
    shape = equation.outvars[0].aval.shape
    if equation.primitive.name == "reshape":
        return value.reshape(shape)
    places = equation.params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for place, size in zip(places, value.shape, strict=True):
        sizes[place] = size
    return np.broadcast_to(value.reshape(sizes), shape)


def _channels(equation: Any, value: _Value) -> np.ndarray:
    """A constant's numbers, one a channel or one for all: [C] or [1], float64."""
    if not isinstance(value, np.ndarray) or value.size != (1, *value.shape)[-1]:
        raise _unknown(equation)
    return value.reshape(-1).astype(np.float64)


def _window(equation: Any) -> dict[str, Any]:
    p = equation.params
    ones = (1, 1, 1, 1)
    sides = (p["window_dimensions"], p["window_strides"])
    within = all(sizes[0] == sizes[3] == 1 for sizes in sides)
    if not within or (p["base_dilation"], p["window_dilation"]) != (ones, ones):
        raise _unknown(equation)
    return {
        "kernel_shape": p["window_dimensions"][1:3],
        "strides": p["window_strides"][1:3],
        "pads": _pads(p["padding"][1:3]),
    }


def _pads(sides: Sequence[tuple[int, int]]) -> list[int]:
    """What comes before rows and columns, then what comes after."""
    return [before for before, _ in sides] + [after for _, after in sides]


def _unknown(equation: Any) -> InputError:
    shapes = ", ".join(str(variable.aval) for variable in equation.invars)
    return InputError(
        f"the network has an operator {equation.primitive.name} of {shapes}, which "
        "audiojax/to_onnx/network.py does not write; add it there, or take "
        "--format=stablehlo"
    )
