"""Rotary positions: pairs of a head's numbers are turned by angles that depend on the place.

Su et al. 2021 (https://arxiv.org/abs/2104.09864), over the two axes of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.diffusion.dit.patches import Grid
from export.diffusion.layers import LayerEmitter
from export.graph import CONTRIB

_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin of the angles, float32 [S, head_dim / 2] each."""

    cos: ir.Value
    sin: ir.Value

    def emit(self, layers: LayerEmitter, x: ir.Value, num_heads: int, name: str) -> ir.Value:
        """Turn queries or keys, [B, S, C] in and out; a pair is two neighbours."""
        first = layers.graph.constant("first_position", np.array([0]))
        return layers.graph.op(
            "RotaryEmbedding",
            [x, first, self.cos, self.sin],
            name,
            domain=CONTRIB,
            interleaved=1,
            num_heads=num_heads,
        )


def emit_rotation(
    layers: LayerEmitter, text: ir.Value, grid: Grid, axes: tuple[int, int, int]
) -> Rotation:
    """Text rows stay as they are; behind them patches are turned by their row and column.

    Args:
        layers: Takes the nodes.
        text: [B, T, C]
        grid: The patches.
        axes: How many numbers of a head turn with the frame, which is always 0, with the row and
            with the column.
    """
    graph = layers.graph
    still, *turning = axes
    # In double precision: far from the first patch an angle of float32 is off by 1e-5.
    angles = [
        _angles(layers, count, num, axis)
        for axis, (count, num) in enumerate(zip((grid.height, grid.width), turning, strict=True))
    ]
    shape = graph.op("Concat", [grid.height, grid.width], "rotation.grid", axis=0)
    spread: list[ir.Value | None] = []
    for axis, (one, num) in enumerate(zip(angles, turning, strict=True)):
        tail = graph.constant(f"rotation.tail_{axis}", np.array([num // 2]))
        size = graph.op("Concat", [shape, tail], f"rotation.size_{axis}", axis=0)
        spread.append(graph.op("Expand", [one, size], f"rotation.spread_{axis}"))  # [h, w, num / 2]
    image = graph.op("Concat", spread, "rotation.image", axis=-1)
    flat = graph.constant("rotation.flat", np.array([-1, sum(turning) // 2]))
    rows = graph.op("Reshape", [image, flat], "rotation.rows")  # [h * w, ...]
    num_text = graph.op("Shape", [text], "rotation.num_text", start=1, end=2)
    in_front = graph.constant("rotation.in_front", np.array([still // 2, 0, 0]))
    pads = graph.op("Concat", [num_text, in_front], "rotation.pads", axis=0)
    padded = graph.op("Pad", [rows, pads], "rotation.angles")  # [T + h * w, head_dim / 2]
    return Rotation(_wave(layers, padded, "Cos"), _wave(layers, padded, "Sin"))


def _wave(layers: LayerEmitter, angles: ir.Value, wave: str) -> ir.Value:
    name = f"rotation.{wave.lower()}"
    double = layers.graph.op(wave, [angles], f"{name}.double")
    return layers.graph.op("Cast", [double], name, to=ir.DataType.FLOAT.value)


def _angles(layers: LayerEmitter, count: ir.Value, num: int, axis: int) -> ir.Value:
    """The angles of `count` [1] rows, [count, 1, num / 2], or columns, [1, count, num / 2]."""
    graph, name = layers.graph, f"rotation.axis_{axis}"
    start, step = (graph.constant(f"rotation.{n}", np.array(n, np.int64)) for n in (0, 1))
    scalar_shape = graph.constant("rotation.scalar", np.array([], np.int64))
    stop = graph.op("Reshape", [count, scalar_shape], f"{name}.count")
    places = graph.op("Range", [start, stop, step], f"{name}.places")
    double = graph.op("Cast", [places], f"{name}.double", to=ir.DataType.DOUBLE.value)
    other_axes = graph.constant(f"{name}.other_axes", np.array([1 - axis, 2]))
    column = graph.op("Unsqueeze", [double, other_axes], f"{name}.column")
    frequencies = 1.0 / _THETA ** (np.arange(0, num, 2) / num)  # [num / 2]
    table = graph.constant(f"{name}.frequencies", frequencies)
    return graph.op("Mul", [column, table], f"{name}.angles")
