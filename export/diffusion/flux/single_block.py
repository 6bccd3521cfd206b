"""FLUX's other block: text and image as rows of one kind, attention beside the feed-forward layer.

Both read the same norm, and one layer reads both, after Dehghani et al. 2023
(https://arxiv.org/abs/2302.05442).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from export.diffusion.dit.attention import IMAGE_LAYERS, Heads
from export.diffusion.dit.block import EXPANSION, gelu_by_tanh
from export.diffusion.dit.modulation import add_gated, emit_modulation, modulated_norm
from export.diffusion.dit.rotation import Rotation
from export.diffusion.layers import LayerEmitter
from export.diffusion.shapes import Shapes, linear_shapes


@dataclass(frozen=True, slots=True)
class SingleBlock:
    """One block, by the module's path and the heads of its attention."""

    name: str
    heads: Heads

    def tensors(self) -> Shapes:
        width, name = self.heads.total_width, self.name
        shapes = linear_shapes(f"{name}.norm.linear", width, 3 * width)
        shapes |= self.heads.tensors(f"{name}.attn", IMAGE_LAYERS)
        shapes |= linear_shapes(f"{name}.proj_mlp", width, EXPANSION * width)
        return shapes | linear_shapes(f"{name}.proj_out", (1 + EXPANSION) * width, width)

    def emit(
        self, layers: LayerEmitter, rows: ir.Value, time: ir.Value, rotation: Rotation
    ) -> ir.Value:
        """Rows of text and image [B, T + S, C] in and out; the active time is [B, 1, C]."""
        name = self.name
        shift, scale, gate = emit_modulation(layers, time, f"{name}.norm.linear", 3)
        normed = modulated_norm(layers, rows, scale, shift, f"{name}.norm")
        projected = self.heads.project(layers, normed, f"{name}.attn", IMAGE_LAYERS)
        read = self.heads.attend(layers, projected, f"{name}.attn", rotation)
        hidden = gelu_by_tanh(layers, layers.linear(normed, f"{name}.proj_mlp"))
        both = layers.graph.op("Concat", [read, hidden], f"{name}.both", axis=-1)
        output = layers.linear(both, f"{name}.proj_out")
        return add_gated(layers, rows, gate, output, f"{name}.sum")
