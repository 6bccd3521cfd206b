"""Convolutions and matrix multiplications in int8, with activations in ranges known beforehand.

An activation is quantized once for all that read it. Its range is a constant of the graph, so no
picture sees another in its batch. Channels have steps of their own where that costs nothing: those
of an input are folded into the weights that read it (`levels`), and where it is rows, which cannot
be quantized by channel as fast, also into the weights that made it. What a convolution gives has a
range for each channel, which the scales of its weights and its bias take in.
The bias also takes back what rounded weights make of the mean input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.diffusion.quantization.levels import (
    InputLevels,
    OutputLevels,
    channel_levels,
    output_levels,
)
from export.diffusion.quantization.precision import NodeRanges
from export.graph import CONTRIB, GraphBuilder, scalar
from export.quantize import quantize_rows
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles

_MIDDLE = 128  # of the levels of uint8
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Quantized:
    """An activation as uint8.

    Attributes:
        values: The levels.
        levels: What they stand for.
        scale: The step of `levels`, as what multiplies by them reads it.
        zero_point: Likewise.
    """

    values: ir.Value
    levels: InputLevels
    scale: ir.Value
    zero_point: ir.Value


class Int8Emitter:
    """Writes quantized weights and emits the nodes that multiply by them.

    Args:
        graph: Takes the nodes.
        tensors: The component's tensors.
        ranges: By node.
        int8_max: The largest integer of weights.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        tensors: TensorFiles,
        ranges: Mapping[str, NodeRanges],
        int8_max: int,
    ) -> None:
        self._graph = graph
        self._tensors = tensors
        self._ranges = ranges
        self._int8_max = int8_max
        self._quantized: dict[ir.Value, Quantized] = {}
        self._divided: set[str] = set()  # nodes that read channels of one step

    def has_ranges(self, node: str) -> bool:
        return node in self._ranges

    def divide(self, weights: FloatArray, reader: str) -> FloatArray:
        """Weights of what makes the channels that `reader` reads, so that they have one step.

        Args:
            weights: The last axis is that of channels.
            reader: Reads what they make, where nothing but products by channel are in between.
        """
        self._divided.add(reader)
        return weights / channel_levels(self._ranges[reader].x_channels).relative

    def quantize(self, x: ir.Value, node: str, *, is_image: bool) -> Quantized:
        """`x`, which `node` reads, as uint8; an image [B, C, H, W] by channel."""
        if x not in self._quantized:
            graph, levels = self._graph, channel_levels(self._ranges[node].x_channels)
            step = graph.constant(f"{x.name}.step", scalar(levels.step, np.float32))
            zero_point = graph.constant(f"{x.name}.zero", scalar(levels.zero_point, np.uint8))
            values, steps, zero_points = x, step, zero_point
            if is_image:
                zeros = np.full(len(levels.relative), levels.zero_point, np.uint8)
                steps = graph.weight(f"{x.name}.input_steps", levels.step * levels.relative)
                zero_points = graph.weight(f"{x.name}.input_zeros", zeros)
            elif node not in self._divided:
                factors = graph.weight(f"{x.name}.factors", 1 / levels.relative)
                values = graph.op("Mul", [x, factors], f"{x.name}.divided")
            values = graph.op(
                "QuantizeLinear", [values, steps, zero_points], f"{x.name}.quantized", axis=1
            )
            self._quantized[x] = Quantized(values, levels, step, zero_point)
        return self._quantized[x]

    def moved(self, x: ir.Value, node: str, move: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """`move` of an image `x` in uint8, for `node` and others that read it in the same range."""
        quantized = self.quantize(x, node, is_image=True)
        values = move(quantized.values)
        self._quantized[values] = replace(quantized, values=values)
        return values

    def convolve(
        self,
        x: ir.Value,
        node: str,
        weight: FloatArray,
        stride: int,
        pads: tuple[int, int, int, int],
    ) -> ir.Value:
        """Convolve with `weight` [N, C, h, w] in the ranges of `node`; the result stays uint8."""
        graph, quantized = self._graph, self.quantize(x, node, is_image=True)
        output = self._output_levels(node)
        rows = weight.reshape(len(weight), -1)
        kernel = rows.shape[1] // weight.shape[1]
        q, scale, lost = self._quantize_rows(rows, node, quantized.levels, kernel)
        unit = scale.astype(np.float64) * quantized.levels.step  # what a sum of products counts
        bias = self._tensors.read(f"{node}.bias") + lost
        shift = output.zero_points.astype(np.float64) - _MIDDLE
        widest = output.steps.max()
        # Of this node alone: without VNNI the runtime changes it to uint8 for each that reads it.
        zero = graph.constant(f"{node}.weight_zero_point", scalar(0, np.int8))
        return graph.op(
            "QLinearConv",
            [
                quantized.values,
                quantized.scale,
                quantized.zero_point,
                graph.weight(f"{node}.weight", q.reshape(weight.shape)),
                graph.weight(f"{node}.scale", scale * (widest / output.steps)),
                zero,
                graph.constant(f"{node}.widest_step", scalar(widest, np.float32)),
                graph.constant("middle", scalar(_MIDDLE, np.uint8)),
                graph.weight(f"{node}.bias", _to_int32((bias + shift * output.steps) / unit)),
            ],
            f"{node}.levels",
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

    def linear(self, x: ir.Value, node: str, *, bias: bool, reader: str | None = None) -> ir.Value:
        """[..., K] -> [..., N] in float32, its channels divided for `reader` where one is named."""
        graph, quantized = self._graph, self.quantize(x, node, is_image=False)
        num_rows, num_columns = self._tensors.shape(f"{node}.weight")
        weight = np.empty((num_columns, num_rows), np.int8)  # [K, N]
        scale = np.empty(num_rows, np.float32)  # [N]
        values = np.empty(num_rows, np.float32)  # [N]
        for start, block in self._tensors.row_blocks(f"{node}.weight"):
            q, block_scale, lost = self._quantize_rows(block, node, quantized.levels)
            end = start + len(q)
            weight[:, start:end], scale[start:end], values[start:end] = q.T, block_scale, lost
        if bias:
            values = values + self._tensors.read(f"{node}.bias")
        if reader is not None:
            scale, values = self.divide(scale, reader), self.divide(values, reader)
        inputs: list[ir.Value | None] = [
            quantized.values,
            graph.weight(f"{node}.weight", weight),
            quantized.scale,
            graph.weight(f"{node}.scale", scale),
            quantized.zero_point,
            None,
            graph.weight(f"{node}.bias", values),
        ]
        return graph.op("MatMulIntegerToFloat", inputs, f"{node}.matmul", domain=CONTRIB)

    def _quantize_rows(
        self, rows: FloatArray, node: str, levels: InputLevels, kernel: int = 1
    ) -> tuple[NDArray[np.int8], FloatArray, FloatArray]:
        """Weights for inputs of one step, the scale of each row, and what rounding takes from it.

        Args:
            rows: [N, C * kernel]
            node: Whose mean input counts.
            levels: Of the input.
            kernel: Columns of each channel.
        """
        relative = np.repeat(levels.relative, kernel)
        q, scale = quantize_rows(rows * relative, self._int8_max)
        mean = np.repeat(self._ranges[node].x_mean, kernel)
        kept = (q @ (mean / relative)) * scale
        return q, scale, (rows @ mean - kept).astype(np.float32)

    def _output_levels(self, node: str) -> OutputLevels:
        y = self._ranges[node].y
        assert y is not None, f"{node} is no convolution"
        return output_levels(y)


def _to_int32(values: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(values), -_INT32_MAX, _INT32_MAX).astype(np.int32)
