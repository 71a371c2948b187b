"""A graph of ONNX operators, added one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# The oldest set of operators that has all that is needed: more runtimes know it.
OPSET = 17
# Of the file's format, which goes with that set.
IR_VERSION = 8

# A named tensor's element type and shape; text stands for a size known when run.
Shaped = tuple[type[np.generic], Sequence[int | str]]


class Graph:
    """Nodes and constants; what a method gives is the name of a tensor in it."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """A tensor of these values."""
        name = f"constant_{len(self._constants)}"
        array = np.ascontiguousarray(np.asarray(value, dtype))
        # `ascontiguousarray` makes a vector of a number.
        array = array.reshape(np.shape(value))
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The output of an operator; arguments and attributes are as ONNX names them.

        Add `output` to name it.
        """
        name = f"{operator}_{len(self._nodes)}"
        output = attributes.pop("output", name)
        self._nodes.append(
            helper.make_node(operator, inputs, [output], name, **attributes)
        )
        return output

    def reshape(self, tensor: str, *shape: int) -> str:
        """The tensor in another shape; a 0 keeps the size at that place."""
        return self.add("Reshape", tensor, self.constant(shape, np.int64))

    def model(
        self,
        inputs: Mapping[str, Shaped],
        outputs: Mapping[str, Shaped],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """The graph as a model, checked by ONNX's own rules."""
        graph = helper.make_graph(
            self._nodes, "audiojax", _infos(inputs), _infos(outputs), self._constants
        )
        model = helper.make_model(
            graph,
            producer_name="audiojax",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model


def _infos(tensors: Mapping[str, Shaped]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
        )
        for name, (dtype, shape) in tensors.items()
    ]
