"""A convolution of an image whose pixels were doubled, as four small ones of the image itself.

Where every pixel is there four times, a 3 x 3 kernel meets only 2 x 2 different ones, and which,
depends on whether its row and column are even or odd. So each of these four phases has a kernel of
its own, and the whole takes 16 / 36 of the multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graph import GraphBuilder
from export.safetensors_file import FloatArray

_HEIGHT, _WIDTH = 2, 3  # axes of a kernel


@dataclass(frozen=True, slots=True)
class Phase:
    """The pixels of the result in even or odd rows and columns."""

    row: int
    column: int

    @property
    def name(self) -> str:
        return f"phase_{self.row}{self.column}"

    @property
    def pads(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right: even rows look up, odd ones down."""
        return 1 - self.row, 1 - self.column, self.row, self.column

    def weight(self, weight: FloatArray) -> FloatArray:
        """[N, C, 3, 3] -> [N, C, 2, 2]; what falls on the same pixel is added."""
        return _fold(_fold(weight, _HEIGHT, self.row), _WIDTH, self.column)


PHASES = tuple(Phase(row, column) for row in (0, 1) for column in (0, 1))


def interleave(graph: GraphBuilder, parts: list[ir.Value], name: str) -> ir.Value:
    """Four images [B, N, H, W], one for each of `PHASES`, -> [B, N, 2 * H, 2 * W]."""
    stacked = graph.op("Concat", list(parts), f"{name}.stacked", axis=1)
    return graph.op("DepthToSpace", [stacked], name, blocksize=2, mode="DCR")


def _fold(weight: FloatArray, axis: int, odd: int) -> FloatArray:
    first, middle, last = (weight.take([index], axis) for index in range(3))
    pair = [first + middle, last] if odd else [first, middle + last]
    return np.concatenate(pair, axis)
