"""A graph builder that knows the type of every value, and puts casts where 16 bits end.

The emitters of all families draw for the CPU, in float32. Every node that they make passes here,
so this is the one place that makes a graph for a GPU of it: nodes in 16 bits, but for those
that need more, and operators of ONNX Runtime written out where the target does not have them.
Inputs and outputs of the graph stay float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from engines.manifest import GraphSignature, TensorSignature
from export.diffusion.gpu.standard import EXPANSIONS, needs_expansion
from export.graph import GraphBuilder
from export.weights import WeightsFile

FLOAT, DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
_FLOATS = (FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_NUMPY_TYPES: Mapping[ir.DataType, type[np.generic]] = MappingProxyType(
    {
        FLOAT: np.float32,
        ir.DataType.FLOAT16: np.float16,
        ir.DataType.BFLOAT16: ml_dtypes.bfloat16,
    }
)
_HALF_MAX = float(np.finfo(np.float16).max)
_TYPES = {"fp32": FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}

# What multiplies by weights: the cost of a model, and the reason for 16 bits.
_PRODUCTS = frozenset(
    {"Conv", "MatMul", "FusedMatMul", "GroupQueryAttention", "MultiHeadAttention"}
)
# Sums over many squares, which fp16 cannot hold; the result is small again.
_NORMS = frozenset({"InstanceNormalization", "LayerNormalization", "SimplifiedLayerNormalization"})
# Where an angle or an exponent is off by a thousandth, the result is off by as much or more.
_PRECISE = frozenset({"Sin", "Cos", "Exp", "ReduceL2", "RotaryEmbedding"})

_FIXED_RESULTS = {
    "Shape": ir.DataType.INT64,
    "ArgMax": ir.DataType.INT64,
    "Equal": ir.DataType.BOOL,
    "Less": ir.DataType.BOOL,
}


@dataclass(frozen=True, slots=True)
class GpuLayout:
    """How one component is drawn.

    Attributes:
        precision: What most nodes compute in.
        wide: Globs over the names of nodes that are float32 in any case, and give it.
        exact: Globs over the names of weights that are stored in float32 in any case.
        standard_only: Whether the operators of com.microsoft are written out.
    """

    precision: Literal["fp32", "fp16", "bf16"]
    wide: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    standard_only: bool = False

    @property
    def description(self) -> str:
        """As the manifest has it."""
        if self.precision == "fp32" or not self.wide:
            return self.precision
        return f"{self.precision}, {', '.join(self.wide)} fp32"


class GpuGraphBuilder(GraphBuilder):
    """Draws in one `layout`; otherwise a `GraphBuilder`."""

    def __init__(self, weights: WeightsFile, name: str, layout: GpuLayout) -> None:
        super().__init__(weights, name)
        self._layout = layout
        self._narrow = _TYPES[layout.precision]
        self._types: dict[ir.Value, ir.DataType] = {}
        self._stored: set[ir.Value] = set()
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def input(self, name: str, dtype: str, shape: list[int | str]) -> ir.Value:
        value = super().input(name, dtype, shape)
        assert value.dtype is not None
        self._types[value] = value.dtype
        return value

    def output(self, value: ir.Value, name: str, dtype: str, shape: list[int | str]) -> None:
        if self._types[value] in _FLOATS and self._types[value] is not FLOAT:
            value = self._cast(value, FLOAT, f"{value.name}.result")
        super().output(value, name, dtype, shape)

    def weight(self, name: str, array: NDArray[Any]) -> ir.Value:
        return self._keep(super().weight(name, self._stored_as(name, array)))

    def weight_in_blocks(
        self,
        name: str,
        shape: tuple[int, ...],
        blocks: Iterable[NDArray[Any]],
        dtype: type[np.generic] = np.float32,
    ) -> ir.Value:
        """In 16 bits as it comes: a number beyond fp16 would be infinite from then on."""
        if self._narrow is not FLOAT:
            dtype = _NUMPY_TYPES[self._narrow]
            blocks = (block.astype(dtype) for block in blocks)
        return self._keep(super().weight_in_blocks(name, shape, blocks, dtype))

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        if self._layout.standard_only and array.dtype == np.float64:
            array = array.astype(np.float32)  # TensorRT has nothing wider
        return self._keep(super().constant(name, array))

    @property
    def signature(self) -> GraphSignature:
        """What the finished graph reads and gives."""
        return GraphSignature(
            inputs={str(value.name): _signature(value) for value in self._inputs},
            outputs={str(value.name): _signature(value) for value in self._outputs},
        )

    def is_stored(self, value: ir.Value | None) -> bool:
        """Whether a value is a weight or a constant."""
        return value in self._stored

    def ops(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        names: list[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        if op_type == "Cast" and self._layout.standard_only and attributes["to"] == DOUBLE.value:
            attributes["to"] = FLOAT.value
        computed, given = self._types_of(op_type, inputs, names[0])
        if computed is not None:
            inputs = [self._as(value, computed) for value in inputs]
        if needs_expansion(self, op_type, inputs, standard_only=self._layout.standard_only):
            with self._everything_in_float() if computed is FLOAT else nullcontext():
                written_out = EXPANSIONS[op_type](self, inputs, names[0], attributes)
            return [written_out if given is None else self._given(written_out, given)]
        found = super().ops(op_type, inputs, names, domain=domain, **attributes)
        result = given or computed or self._result(op_type, inputs, attributes)
        self._types |= dict.fromkeys(found, computed or result)
        return [self._given(value, result) for value in found]

    def _given(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if self._types[value] is dtype:
            return value
        return self._cast(value, dtype, f"{value.name}.narrow")

    @contextmanager
    def _everything_in_float(self) -> Iterator[None]:
        """The nodes of what is written out in there are as precise as the one they stand for."""
        layout, self._layout = self._layout, replace(self._layout, wide=("*",))
        yield
        self._layout = layout

    def _types_of(
        self, op_type: str, inputs: list[ir.Value | None], name: str
    ) -> tuple[ir.DataType | None, ir.DataType | None]:
        """What a node computes in and what it gives; None where its inputs are no matter."""
        floats = [v for v in inputs if v is not None and self._types[v] in _FLOATS]
        if op_type in _FIXED_RESULTS or op_type == "Cast" or not floats:
            return None, None
        narrow = self._narrow
        if narrow is FLOAT or _matches(name, self._layout.wide):
            return FLOAT, FLOAT
        if op_type in _NORMS:
            return FLOAT, narrow
        if op_type in _PRECISE:
            return FLOAT, FLOAT
        if op_type in _PRODUCTS:
            return narrow, narrow
        moving = [value for value in floats if value not in self._stored] or floats
        # Among values of both kinds the narrow ones win, but for those that are named as wide.
        kind = narrow if any(self._types[value] is narrow for value in moving) else FLOAT
        return kind, kind

    def _result(
        self, op_type: str, inputs: list[ir.Value | None], attributes: dict[str, Any]
    ) -> ir.DataType:
        if op_type in _FIXED_RESULTS:
            return _FIXED_RESULTS[op_type]
        if op_type == "Cast":
            return ir.DataType(attributes["to"])
        first = next(value for value in inputs if value is not None)
        return self._types[first]

    def _as(self, value: ir.Value | None, dtype: ir.DataType) -> ir.Value | None:
        if value is None or self._types[value] not in _FLOATS or self._types[value] is dtype:
            return value
        if (value, dtype) not in self._casts:
            suffix = "float" if dtype is FLOAT else "narrow"
            self._casts[value, dtype] = self._cast(value, dtype, f"{value.name}.as_{suffix}")
        return self._casts[value, dtype]

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        (cast,) = super().ops("Cast", [value], [name], to=dtype.value)
        self._types[cast] = dtype
        if value in self._stored:
            self._stored.add(cast)
        return cast

    def _stored_as(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """In 16 bits, where they hold what the weight holds."""
        if array.dtype != np.float32 or _matches(name, self._layout.exact):
            return array
        is_half = self._narrow is ir.DataType.FLOAT16  # bfloat16 reaches as far as float32
        if is_half and array.size and float(np.abs(array).max()) > _HALF_MAX:
            return array
        return array.astype(_NUMPY_TYPES[self._narrow], copy=False)

    def _keep(self, value: ir.Value) -> ir.Value:
        assert value.dtype is not None
        self._types[value] = value.dtype
        self._stored.add(value)
        return value


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _signature(value: ir.Value) -> TensorSignature:
    assert value.shape is not None
    shape = [size if isinstance(size, int) else str(size.value) for size in value.shape]
    return TensorSignature(
        dtype="int64" if value.dtype is ir.DataType.INT64 else "float32", shape=tuple(shape)
    )
