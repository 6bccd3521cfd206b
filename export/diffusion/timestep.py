"""Numbers (time steps, sizes) as waves of falling frequency, and the two layers that read them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.diffusion.layers import LayerEmitter
from export.diffusion.shapes import Shapes, linear_shapes
from export.graph import scalar

_LONGEST_PERIOD = 10_000.0


@dataclass(frozen=True, slots=True)
class Sinusoids:
    """The waves that stand for a number.

    Attributes:
        width: Waves, half of them sines and half cosines.
        flip_sin_to_cos: Whether the cosines come first.
        freq_shift: How many frequencies short of the longest period the row ends.
        scale: What the angles are multiplied by, last of all.
    """

    width: int
    flip_sin_to_cos: bool
    freq_shift: float
    scale: float = 1.0

    def emit(self, layers: LayerEmitter, numbers: ir.Value, name: str) -> ir.Value:
        """[...] -> [..., width]."""
        graph = layers.graph
        frequencies = graph.constant(f"{name}.frequencies", self.frequencies())  # [width / 2]
        last = graph.constant("last_axis", np.array([-1]))
        column = graph.op("Unsqueeze", [numbers, last], f"{name}.column")  # [..., 1]
        angles = graph.op("Mul", [column, frequencies], f"{name}.angles")
        if self.scale != 1:
            factor = graph.constant(f"{name}.scale", scalar(self.scale, np.float32))
            angles = graph.op("Mul", [angles, factor], f"{name}.scaled")
        waves = [graph.op(wave, [angles], f"{name}.{wave.lower()}") for wave in ("Sin", "Cos")]
        if self.flip_sin_to_cos:
            waves.reverse()
        return graph.op("Concat", list(waves), name, axis=-1)

    def frequencies(self) -> NDArray[np.float32]:
        """[width / 2], from 1 down."""
        # As the reference rounds: a step late in the schedule is 999 times a frequency, so a
        # frequency that is off in its last bit turns the wave by 6e-5.
        num = self.width // 2
        exponents = np.float32(-math.log(_LONGEST_PERIOD)) * np.arange(num, dtype=np.float32)
        exponents /= np.float32(num - self.freq_shift)
        return np.exp(exponents.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class TimestepEmbedding:
    """Two linear layers with SiLU in between, [B, in_width] -> [B, out_width]."""

    name: str
    in_width: int
    out_width: int

    def tensors(self) -> Shapes:
        return linear_shapes(f"{self.name}.linear_1", self.in_width, self.out_width) | (
            linear_shapes(f"{self.name}.linear_2", self.out_width, self.out_width)
        )

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        hidden = layers.silu(layers.linear(x, f"{self.name}.linear_1"))
        return layers.linear(hidden, f"{self.name}.linear_2")
