"""What a diffusion transformer is told beside rows: the time, the whole text, the guidance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import LayerEmitter
from export.diffusion.shapes import Shapes
from export.diffusion.timestep import Sinusoids, TimestepEmbedding
from export.graph import scalar

_WAVES = Sinusoids(256, flip_sin_to_cos=True, freq_shift=0)
_UNIT = 1000  # what times and guidance scales of 1 are for the waves


@dataclass(frozen=True, slots=True)
class TimeTextEmbedding:
    """The sum of up to three embeddings, each of two linear layers.

    Attributes:
        width: Of the sum.
        pooled_width: Of the whole text's row.
        has_guidance: Whether the guidance scale is told.
    """

    width: int
    pooled_width: int
    has_guidance: bool = False

    def tensors(self) -> Shapes:
        shapes = self._embedding("timestep", _WAVES.width).tensors()
        shapes |= self._embedding("text", self.pooled_width).tensors()
        if self.has_guidance:
            shapes |= self._embedding("guidance", _WAVES.width).tensors()
        return shapes

    def emit(
        self, layers: LayerEmitter, timestep: ir.Value, pooled: ir.Value, guidance: ir.Value | None
    ) -> ir.Value:
        """Times [B] of 0 to 1000, texts [B, pooled_width], scales [B] -> [B, 1, width], active."""
        graph = layers.graph
        waves = _WAVES.emit(layers, timestep, "time_proj")
        total = self._embedding("timestep", _WAVES.width).emit(layers, waves)
        if guidance is not None:
            unit = graph.constant("thousand", scalar(_UNIT, np.float32))
            scaled = graph.op("Mul", [guidance, unit], "guidance.scaled")
            waves = _WAVES.emit(layers, scaled, "guidance_proj")
            told = self._embedding("guidance", _WAVES.width).emit(layers, waves)
            total = layers.add(total, told, "time_text_embed.guided")
        text = self._embedding("text", self.pooled_width).emit(layers, pooled)
        total = layers.silu(layers.add(total, text, "time_text_embed"))
        row_axis = graph.constant("row_axis", np.array([1]))
        return graph.op("Unsqueeze", [total, row_axis], "time")

    @staticmethod
    def as_fraction(layers: LayerEmitter, timestep: ir.Value) -> ir.Value:
        """Divide by 1000 and multiply again: FLUX is told fractions, and rounds on the way."""
        graph = layers.graph
        unit = graph.constant("thousand", scalar(_UNIT, np.float32))
        fraction = graph.op("Div", [timestep, unit], "timestep.fraction")
        return graph.op("Mul", [fraction, unit], "timestep.scaled")

    def _embedding(self, kind: str, in_width: int) -> TimestepEmbedding:
        return TimestepEmbedding(f"time_text_embed.{kind}_embedder", in_width, self.width)
