"""A thin layer over onnx-ir: nodes in order, weights straight to disk, one call to save."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.weights import WeightsFile

OPSET = 21
IR_VERSION = 10
STANDARD_OPSET = 24  # where attention and its cache are standard operators
STANDARD_IR_VERSION = 11
CONTRIB = "com.microsoft"

_DTYPES = {
    "bfloat16": ir.DataType.BFLOAT16,
    "bool": ir.DataType.BOOL,
    "float16": ir.DataType.FLOAT16,
    "float32": ir.DataType.FLOAT,
    "int32": ir.DataType.INT32,
    "int64": ir.DataType.INT64,
}


_NUMPY_DTYPES: dict[str, type[np.generic]] = {
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "float32": np.float32,
}


class GraphBuilder:
    """Collects the nodes of one graph. Values are named after the node that makes them.

    Args:
        weights: The file that the weights go to.
        name: What the graph is called.
        dtype: What activations are computed in; float32 weights are rounded to it.
        opset: The version of the standard operators.
    """

    def __init__(
        self,
        weights: WeightsFile,
        name: str = "decoder",
        dtype: str = "float32",
        opset: int = OPSET,
    ) -> None:
        self.dtype = dtype
        self._opset = opset
        self._weights = weights
        self._name = name
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: str, shape: list[int | str]) -> ir.Value:
        """Declare a graph input; a string in `shape` is a symbolic size."""
        value = _typed_value(name, dtype, shape)
        self._inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: str, shape: list[int | str]) -> None:
        """Make `value` a graph output under `name`."""
        value.name = name
        value.type = ir.TensorType(_DTYPES[dtype])
        value.shape = ir.Shape(shape)
        self._outputs.append(value)

    def expose(self, value: ir.Value) -> None:
        """Make a float32 value from within an output too, under its own name and of any shape."""
        if value not in self._outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            self._outputs.append(value)

    def weight(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Write an array to the weights file and return it as a value."""
        if array.dtype == np.float32:
            array = array.astype(_NUMPY_DTYPES[self.dtype], copy=False)
        return self._initialize(name, self._weights.append(name, array))

    def weight_in_blocks(
        self,
        name: str,
        shape: tuple[int, ...],
        blocks: Iterable[NDArray[Any]],
        dtype: type[np.generic] = np.float32,
    ) -> ir.Value:
        """The same for a large array of `dtype`, whose blocks of rows are written as they come."""
        return self._initialize(name, self._weights.append_blocks(name, shape, blocks, dtype))

    def dense_in_blocks(
        self, name: str, shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]
    ) -> ir.Value:
        """The same for a float32 array, which is rounded to what activations are computed in."""
        dtype = _NUMPY_DTYPES[self.dtype]
        rounded = (block.astype(dtype, copy=False) for block in blocks)
        return self.weight_in_blocks(name, shape, rounded, dtype)

    def as_computed(self, value: ir.Value, name: str) -> ir.Value:
        """A float32 value in what activations are computed in."""
        if self.dtype == "float32":
            return value
        return self.op("Cast", [value], name, to=_DTYPES[self.dtype].value)

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A small array inside the graph file; the same name gives the same value again."""
        if name in self._initializers:
            return self._initializers[name]
        return self._initialize(name, ir.tensor(array, name=name))

    def op(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        name: str,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Append a node with one output, `name`."""
        return self.ops(op_type, inputs, [name], domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        names: list[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """Append a node with an output for each of `names`; an empty name leaves one out."""
        outputs = [ir.Value(name=name) for name in names]
        self._nodes.append(
            ir.node(
                op_type, inputs, attributes, domain=domain, outputs=outputs, name=names[0] or None
            )
        )
        return outputs

    def save(self, path: Path, producer_version: str) -> None:
        """Write the graph file; the weights are on disk already."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports={"": self._opset} | ({CONTRIB: 1} if self._uses_contrib() else {}),
            name=self._name,
        )
        model = ir.Model(
            graph,
            ir_version=IR_VERSION if self._opset <= OPSET else STANDARD_IR_VERSION,
            producer_name="enginery",
            producer_version=producer_version,
        )
        ir.save(model, path)

    def _uses_contrib(self) -> bool:
        return any(node.domain == CONTRIB for node in self._nodes)

    def _initialize(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        if name in self._initializers:
            raise ValueError(f"the graph has two weights named {name!r}")
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self._initializers[name] = value
        return value


def scalar(value: float | int, dtype: type[np.generic]) -> NDArray[Any]:
    """A number as the zero-dimensional array that operators take."""
    return np.array(value, dtype)


def _typed_value(name: str, dtype: str, shape: list[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(_DTYPES[dtype]), shape=ir.Shape(shape))
