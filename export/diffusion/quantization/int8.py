"""Convolutions and matrix multiplications in int8, with activations in ranges known beforehand.

An activation is quantized once for all that read it. Its range is a constant of the graph, so no
picture sees another in its batch. What a convolution gives has a range for each channel, which
costs nothing: its scales are folded into those of the weights, and its zero points into the bias.
The bias also takes back what rounded weights make of the mean input.
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
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles

_MIDDLE = 128  # of the levels of uint8
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Levels:
    """What uint8 levels stand for: (level - zero_point) * scale."""

    scale: ir.Value
    zero_point: ir.Value
    step: float  # what `scale` holds


@dataclass(frozen=True, slots=True)
class ChannelLevels:
    """What the levels of each channel stand for, as above."""

    steps: NDArray[np.float32]  # [N]
    zero_points: NDArray[np.uint8]  # [N]


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
        graph, quantized, output = self._graph, self.quantize(x, node), self._output_levels(node)
        rows = weight.reshape(len(weight), -1)
        q, scale = quantize_rows(rows)
        unit = scale.astype(np.float64) * quantized.levels.step  # what a sum of products counts
        mean = np.repeat(self._ranges[node].x_mean, rows.shape[1] // weight.shape[1])
        bias = self._tensors.read(f"{node}.bias") + (rows - q * scale[:, None]) @ mean
        shift = output.zero_points.astype(np.float64) - _MIDDLE
        widest = output.steps.max()
        return graph.op(
            "QLinearConv",
            [
                quantized.values,
                quantized.levels.scale,
                quantized.levels.zero_point,
                graph.weight(f"{name}.weight", q.reshape(weight.shape)),
                graph.weight(f"{name}.scale", scale * (widest / output.steps)),
                graph.constant("weight_zero_point", scalar(0, np.int8)),
                graph.constant(f"{node}.widest_step", scalar(widest, np.float32)),
                graph.constant("middle", scalar(_MIDDLE, np.uint8)),
                graph.weight(f"{name}.bias", _to_int32((bias + shift * output.steps) / unit)),
            ],
            f"{name}.levels",
            kernel_shape=list(weight.shape[2:]),
            pads=list(pads),
            strides=[stride, stride],
        )

    def dequantize(self, values: ir.Value, node: str) -> ir.Value:
        """The result of a convolution as float32, under the node's own name."""
        graph, levels = self._graph, self._output_levels(node)
        steps = graph.weight(f"{node}.steps", levels.steps)
        zero_points = graph.weight(f"{node}.zero_points", levels.zero_points)
        return graph.op("DequantizeLinear", [values, steps, zero_points], node, axis=1)

    def linear(self, x: ir.Value, node: str, *, bias: bool) -> ir.Value:
        """[..., K] -> [..., N] in float32."""
        graph, quantized = self._graph, self.quantize(x, node)
        num_rows, num_columns = self._tensors.shape(f"{node}.weight")
        weight = np.empty((num_columns, num_rows), np.int8)  # [K, N]
        scale = np.empty(num_rows, np.float32)  # [N]
        mean, lost = self._ranges[node].x_mean, np.empty(num_rows, np.float32)
        for start, block in self._tensors.row_blocks(f"{node}.weight"):
            q, block_scale = quantize_rows(block)
            weight[:, start : start + len(q)] = q.T
            scale[start : start + len(q)] = block_scale
            lost[start : start + len(q)] = (block - q * block_scale[:, None]) @ mean
        inputs: list[ir.Value | None] = [
            quantized.values,
            graph.weight(f"{node}.weight", weight),
            quantized.levels.scale,
            graph.weight(f"{node}.scale", scale),
            quantized.levels.zero_point,
        ]
        values = lost
        if bias:
            values = values + self._tensors.read(f"{node}.bias")
        inputs += [None, graph.weight(f"{node}.bias", values)]
        return graph.op("MatMulIntegerToFloat", inputs, f"{node}.matmul", domain=CONTRIB)

    def _output_levels(self, node: str) -> ChannelLevels:
        y = self._ranges[node].y
        assert y is not None, f"{node} is no convolution"
        return ChannelLevels(
            np.array([channel.scale for channel in y], np.float32),
            np.array([channel.zero_point for channel in y], np.uint8),
        )

    def _levels(self, name: str, found: ActivationRange) -> Levels:
        scale = self._graph.constant(f"{name}.step", scalar(found.scale, np.float32))
        zero_point = self._graph.constant(f"{name}.zero", scalar(found.zero_point, np.uint8))
        return Levels(scale, zero_point, found.scale)


def _to_int32(values: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(values), -_INT32_MAX, _INT32_MAX).astype(np.int32)
