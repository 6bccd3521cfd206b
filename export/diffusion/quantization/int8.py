"""Convolutions and matrix multiplications in int8, with activations in ranges known beforehand.

An activation is quantized once for all that read it. Its range is a constant of the graph, so no
picture sees another in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.diffusion.quantization.precision import NodeRanges
from export.diffusion.quantization.ranges import ActivationRange
from export.graph import CONTRIB, GraphBuilder, scalar
from export.quantize import quantize_rows
from export.tensor_files import FloatArray, TensorFiles

_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Levels:
    """What uint8 levels stand for: (level - zero_point) * scale."""

    scale: ir.Value
    zero_point: ir.Value
    step: float  # what `scale` holds


@dataclass(frozen=True, slots=True)
class Quantized:
    """An activation as uint8."""

    values: ir.Value
    levels: Levels


class Int8Emitter:
    """Writes quantized weights and emits the nodes that multiply by them.

    Args:
        graph: Takes the nodes.
        tensors: The component's tensors.
        ranges: By node.
    """

    def __init__(
        self, graph: GraphBuilder, tensors: TensorFiles, ranges: Mapping[str, NodeRanges]
    ) -> None:
        self._graph = graph
        self._tensors = tensors
        self._ranges = ranges
        self._quantized: dict[ir.Value, Quantized] = {}

    def has_ranges(self, node: str) -> bool:
        return node in self._ranges

    def quantize(self, x: ir.Value, node: str) -> Quantized:
        """`x`, which `node` reads, as uint8."""
        if x not in self._quantized:
            levels = self._levels(str(x.name), self._ranges[node].x)
            values = self._graph.op(
                "QuantizeLinear", [x, levels.scale, levels.zero_point], f"{x.name}.quantized"
            )
            self._quantized[x] = Quantized(values, levels)
        return self._quantized[x]

    def moved(self, x: ir.Value, node: str, move: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """`move` of `x` in uint8, for `node` and others that read it in the same range."""
        quantized = self.quantize(x, node)
        values = move(quantized.values)
        self._quantized[values] = Quantized(values, quantized.levels)
        return values

    def convolve(
        self,
        x: ir.Value,
        node: str,
        name: str,
        weight: FloatArray,
        stride: int,
        pads: tuple[int, int, int, int],
    ) -> ir.Value:
        """Convolve with `weight` [N, C, h, w] in the ranges of `node`; the result stays uint8."""
        graph, quantized, output = self._graph, self.quantize(x, node), self.output_levels(node)
        q, scale = quantize_rows(weight.reshape(len(weight), -1))
        bias = self._tensors.read(f"{node}.bias") / (scale * np.float64(quantized.levels.step))
        return graph.op(
            "QLinearConv",
            [
                quantized.values,
                quantized.levels.scale,
                quantized.levels.zero_point,
                graph.weight(f"{name}.weight", q.reshape(weight.shape)),
                graph.weight(f"{name}.scale", scale),
                graph.constant("weight_zero_point", scalar(0, np.int8)),
                output.scale,
                output.zero_point,
                graph.weight(f"{name}.bias", _to_int32(bias)),
            ],
            f"{name}.levels",
            kernel_shape=list(weight.shape[2:]),
            pads=list(pads),
            strides=[stride, stride],
        )

    def output_levels(self, node: str) -> Levels:
        """What the result of a convolution stands for."""
        y = self._ranges[node].y
        assert y is not None, f"{node} is no convolution"
        return self._levels(node, y)

    def dequantize(self, values: ir.Value, node: str) -> ir.Value:
        """The result of a convolution as float32, under the node's own name."""
        levels = self.output_levels(node)
        return self._graph.op("DequantizeLinear", [values, levels.scale, levels.zero_point], node)

    def linear(self, x: ir.Value, node: str, *, bias: bool) -> ir.Value:
        """[..., K] -> [..., N] in float32."""
        graph, quantized = self._graph, self.quantize(x, node)
        num_rows, num_columns = self._tensors.shape(f"{node}.weight")
        weight = np.empty((num_columns, num_rows), np.int8)  # [K, N]
        scale = np.empty(num_rows, np.float32)  # [N]
        for start, block in self._tensors.row_blocks(f"{node}.weight"):
            q, block_scale = quantize_rows(block)
            weight[:, start : start + len(q)] = q.T
            scale[start : start + len(q)] = block_scale
        inputs: list[ir.Value | None] = [
            quantized.values,
            graph.weight(f"{node}.weight", weight),
            quantized.levels.scale,
            graph.weight(f"{node}.scale", scale),
            quantized.levels.zero_point,
        ]
        if bias:
            values = self._tensors.read(f"{node}.bias")
            inputs += [None, graph.weight(f"{node}.bias", values)]
        return graph.op("MatMulIntegerToFloat", inputs, f"{node}.matmul", domain=CONTRIB)

    def _levels(self, name: str, found: ActivationRange) -> Levels:
        scale = self._graph.constant(f"{name}.step", scalar(found.scale, np.float32))
        zero_point = self._graph.constant(f"{name}.zero", scalar(found.zero_point, np.uint8))
        return Levels(scale, zero_point, found.scale)


def _to_int32(values: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(values), -_INT32_MAX, _INT32_MAX).astype(np.int32)
