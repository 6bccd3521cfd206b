"""Matrix multiplications by a weight, in the layout that the node's precision asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.graph import CONTRIB, GraphBuilder, scalar
from export.operators import Operators, OrtOperators
from export.precision import INT8_MAX, LayoutChooser
from export.quantize import INT8_ZERO, choose_block_size, quantize_blocks, quantize_rows
from export.quantized.linear import emit_integers, kept_integers
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles

Int8Rows = tuple[NDArray[np.int8], FloatArray]  # [rows, K] and the scale of each row


@dataclass(frozen=True, slots=True)
class Projection:
    """y = x W^T + b, where W is one tensor [N, K] or several stacked along N."""

    node: str
    weights: tuple[str, ...]
    biases: tuple[str, ...] = ()


class LinearEmitter:
    """Writes weights and emits the nodes that multiply by them.

    Args:
        graph: Takes the nodes.
        tensors: The checkpoint's tensors.
        precision: Decides the layout of each node.
        int4_block_size: Weights that share a scale; None chooses for each node.
        operators: How the target spells a product; by default as ONNX Runtime does.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        tensors: TensorFiles,
        precision: LayoutChooser,
        int4_block_size: int | None,
        operators: Operators | None = None,
    ) -> None:
        self._graph = graph
        self._operators = operators or OrtOperators(graph)
        self._tensors = tensors
        self._precision = precision
        self._int4_block_size = int4_block_size
        self._quantized: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._shares_zero_points = False
        self._zero_points: ir.Value | None = None  # [..., 1], of all rows that are there now

    def begin_rows(self) -> None:
        """Say that all inputs from here on have the same rows, until this is called again."""
        self._shares_zero_points = True
        self._zero_points = None

    def emit(
        self, x: ir.Value, projection: Projection, row_scale: ir.Value | None = None
    ) -> ir.Value:
        """[..., K] -> [..., N]; `row_scale` [..., 1] is what x is yet to be multiplied by."""
        y, scale = self.emit_unscaled(x, projection, row_scale)
        if scale is not None:
            y = self._graph.op("Mul", [y, scale], f"{projection.node}.scaled")
        if not projection.biases:
            return y
        bias = np.concatenate([self._tensors.read(name) for name in projection.biases])  # [N]
        return self._graph.op(
            "Add",
            [y, self._graph.weight(f"{projection.node}.bias", bias)],
            f"{projection.node}.biased",
        )

    def emit_unscaled(
        self, x: ir.Value, projection: Projection, row_scale: ir.Value | None = None
    ) -> tuple[ir.Value, ir.Value | None]:
        """The product without bias, and what its rows are yet to be multiplied by, if anything.

        Whoever multiplies it by rows anyway saves a pass over all of it.
        """
        layout, node = self._precision.layout(projection.node), projection.node
        kept = kept_integers(self._tensors, projection.weights, layout)
        if kept is not None and all(matrix.is_by_rows for matrix in kept):
            quantized = ((matrix.signed_rows(), matrix.scales[:, 0]) for matrix in kept)
            return self._emit_int8(x, projection, quantized, row_scale)
        if kept is None and layout == "int8":
            blocks = (
                quantize_rows(block, self._precision.int8_max)
                for _, block in self._row_blocks(projection)
            )
            return self._emit_int8(x, projection, blocks, row_scale)
        if row_scale is not None:
            x = self._graph.op("Mul", [x, row_scale], f"{node}.rows_scaled")
        if kept is not None:
            return emit_integers(self._graph, x, node, kept), None
        if layout == "int4":
            return self._emit_int4(x, projection), None
        weight = self._graph.weight(f"{node}.weight", self._stacked(projection))
        return self.emit_dense(x, weight, node), None

    def emit_dense(self, x: ir.Value, weight: ir.Value, node: str) -> ir.Value:
        """Multiply by `weight` [N, K] as it lies, so that a tied head can share the embedding."""
        return self._operators.multiply(x, weight, f"{node}.matmul")

    def _emit_int8(
        self,
        x: ir.Value,
        projection: Projection,
        blocks: Iterable[Int8Rows],
        row_scale: ir.Value | None,
    ) -> tuple[ir.Value, ir.Value]:
        """Weights with a scale a column, activations with a scale a row: no row sees another."""
        graph, node = self._graph, projection.node
        num_rows, num_columns = self._shape(projection)
        quantized, scale_of_row = self._quantize_activations(x, num_columns)
        weight = np.empty((num_columns, num_rows), np.int8)  # [K, N]
        scale = np.empty(num_rows, np.float32)  # [N]
        start = 0
        for q, block_scale in blocks:
            weight[:, start : start + len(q)] = q.T
            scale[start : start + len(q)] = block_scale
            start += len(q)
        product = graph.op(
            "MatMulIntegerToFloat",
            [
                quantized,
                graph.weight(f"{node}.weight", weight),
                graph.constant("one", scalar(1, np.float32)),
                graph.weight(f"{node}.scale", scale),
                graph.constant("activation_zero_point", scalar(INT8_ZERO, np.uint8)),
            ],
            f"{node}.matmul",
            domain=CONTRIB,
        )
        if row_scale is not None:
            scale_of_row = graph.op("Mul", [scale_of_row, row_scale], f"{node}.row_scale")
        return product, scale_of_row

    def _quantize_activations(self, x: ir.Value, width: int) -> tuple[ir.Value, ir.Value]:
        """uint8 around 128 and the scale of each row [..., 1]; once for all that read `x`."""
        if x not in self._quantized:
            graph = self._graph
            size = graph.op("Abs", [x], f"{x.name}.abs")
            last_axis = graph.constant("last_axis", np.array([-1], np.int64))
            largest = graph.op("ReduceMax", [size, last_axis], f"{x.name}.row_max", keepdims=1)
            step = graph.constant("activation_step", scalar(1 / INT8_MAX, np.float32))
            scale = graph.op("Mul", [largest, step], f"{x.name}.row_scale")
            # A row of zeros becomes 0 / 0, and that some integers or other; times 0 they are zeros.
            quantized = graph.op(
                "QuantizeLinear",
                [x, scale, self._zero_points_of(scale)],
                f"{x.name}.quantized",
                axis=-1,
                block_size=width,  # a row is one block
            )
            self._quantized[x] = (quantized, scale)
        return self._quantized[x]

    def _zero_points_of(self, scale: ir.Value) -> ir.Value:
        """One for each scale, as the operator asks for them: all are 128."""
        if self._zero_points is not None:
            return self._zero_points
        graph = self._graph
        zero = graph.constant("zero_point_of_row", np.full((1, 1), INT8_ZERO, np.uint8))
        shape = graph.op("Shape", [scale], f"{scale.name}.shape")
        zero_points = graph.op("Expand", [zero, shape], f"{scale.name}.zero_points")
        if self._shares_zero_points:
            self._zero_points = zero_points
        return zero_points

    def _emit_int4(self, x: ir.Value, projection: Projection) -> ir.Value:
        graph, node = self._graph, projection.node
        num_rows, num_columns = self._shape(projection)
        block_size = self._int4_block_size or choose_block_size(
            next(block for _, block in self._row_blocks(projection))
        )
        num_blocks = -(-num_columns // block_size)
        packed = np.empty((num_rows, num_blocks, block_size // 2), np.uint8)
        scales = np.empty((num_rows, num_blocks), np.float32)
        for start, block in self._row_blocks(projection):
            rows = slice(start, start + len(block))
            packed[rows], scales[rows] = quantize_blocks(block, block_size)
        return graph.op(
            "MatMulNBits",
            [
                x,
                graph.weight(f"{node}.weight_int4", packed),
                graph.weight(f"{node}.scale_int4", scales.reshape(-1)),
            ],
            f"{node}.matmul",
            domain=CONTRIB,
            K=num_columns,
            N=num_rows,
            bits=4,
            block_size=block_size,
            # On a CPU int8 products, without which every call expands the weights.
            accuracy_level=4 if graph.dtype == "float32" else 0,
        )

    def _stacked(self, projection: Projection) -> FloatArray:
        if len(projection.weights) == 1:
            return self._tensors.read(projection.weights[0])
        return np.concatenate([self._tensors.read(name) for name in projection.weights])

    def _shape(self, projection: Projection) -> tuple[int, int]:
        shapes = [self._tensors.shape(name) for name in projection.weights]
        return sum(shape[0] for shape in shapes), shapes[0][1]

    def _row_blocks(self, projection: Projection) -> Iterator[tuple[int, FloatArray]]:
        first_row = 0
        for name in projection.weights:
            for start, block in self._tensors.row_blocks(name):
                yield first_row + start, block
            first_row += self._tensors.shape(name)[0]
