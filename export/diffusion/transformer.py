"""Transformer blocks over the pixels of an image, which look at each other and at the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from export.diffusion.layers import LayerEmitter
from export.diffusion.shapes import Shapes, convolution_shapes, linear_shapes, norm_shapes

LAYER_NORM_EPSILON = 1e-5
GROUP_NORM_EPSILON = 1e-6
EXPANSION = 4  # the width of the feed-forward layer in widths of the block

# The first layer of the feed-forward pair holds two: rows that are passed on, and rows that gate
# them. The graph reads them under these names.
GEGLU = "ff.net.0.proj"
GEGLU_HALVES = ("ff.net.0.hidden", "ff.net.0.gate")


@dataclass(frozen=True, slots=True)
class SpatialTransformer:
    """A stack of transformer blocks inside an image's residual connection.

    Attributes:
        name: The module's path.
        channels: The image's channels, which the heads share.
        context_width: The width of the prompt's rows.
        num_heads: Heads of every attention.
        depth: Blocks in the stack.
        num_groups: Groups of the norm before the stack.
        uses_linear_projection: Whether the checkpoint stores the layers around the stack as
            matrices, and not as convolutions of one pixel. It is the same arithmetic.
    """

    name: str
    channels: int
    context_width: int
    num_heads: int
    depth: int
    num_groups: int
    uses_linear_projection: bool

    @property
    def block_names(self) -> list[str]:
        return [f"{self.name}.transformer_blocks.{index}" for index in range(self.depth)]

    def tensors(self) -> Shapes:
        shapes = norm_shapes(f"{self.name}.norm", self.channels)
        for name in (f"{self.name}.proj_in", f"{self.name}.proj_out"):
            if self.uses_linear_projection:
                shapes |= linear_shapes(name, self.channels, self.channels)
            else:
                shapes |= convolution_shapes(name, self.channels, self.channels, kernel=1)
        for block in self.block_names:
            shapes |= self._block_tensors(block)
        return shapes

    def _block_tensors(self, block: str) -> Shapes:
        width = self.channels
        shapes: Shapes = {}
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= norm_shapes(f"{block}.{norm}", width)
        for attention, context_width in (("attn1", width), ("attn2", self.context_width)):
            name = f"{block}.{attention}"
            shapes |= linear_shapes(f"{name}.to_q", width, width, bias=False)
            shapes |= linear_shapes(f"{name}.to_k", context_width, width, bias=False)
            shapes |= linear_shapes(f"{name}.to_v", context_width, width, bias=False)
            shapes |= linear_shapes(f"{name}.to_out.0", width, width)
        shapes |= linear_shapes(f"{block}.{GEGLU}", width, 2 * EXPANSION * width)
        return shapes | linear_shapes(f"{block}.ff.net.2", EXPANSION * width, width)

    def emit(self, layers: LayerEmitter, image: ir.Value, context: ir.Value) -> ir.Value:
        """[B, channels, H, W] in and out; `context` is [B, T, context_width]."""
        normed = layers.group_norm(image, f"{self.name}.norm", self.num_groups, GROUP_NORM_EPSILON)
        first = f"{self.name}.proj_in"
        to_rows = partial(layers.image_to_rows, name=self.name)
        rows = layers.linear(layers.moved(normed, first, to_rows), first)
        for block in self.block_names:
            rows = self._emit_block(layers, rows, context, block)
        rows = layers.linear(rows, f"{self.name}.proj_out")
        return layers.add(layers.rows_to_image(rows, image, self.name), image, f"{self.name}.sum")

    def _emit_block(
        self, layers: LayerEmitter, rows: ir.Value, context: ir.Value, block: str
    ) -> ir.Value:
        epsilon, last = LAYER_NORM_EPSILON, f"{block}.ff.net.2"
        normed = layers.layer_norm(rows, f"{block}.norm1", epsilon, f"{block}.attn1.to_q")
        attended = self._attend(layers, normed, normed, f"{block}.attn1")
        rows = layers.add(attended, rows, f"{block}.attn1.sum")
        normed = layers.layer_norm(rows, f"{block}.norm2", epsilon, f"{block}.attn2.to_q")
        attended = self._attend(layers, normed, context, f"{block}.attn2")
        rows = layers.add(attended, rows, f"{block}.attn2.sum")
        hidden_name, gate_name = (f"{block}.{half}" for half in GEGLU_HALVES)
        normed = layers.layer_norm(rows, f"{block}.norm3", epsilon, hidden_name)
        hidden = layers.linear(normed, hidden_name, reader=last)
        gate = layers.linear(normed, gate_name)
        gated = layers.graph.op("Mul", [hidden, layers.gelu(gate)], f"{block}.gated")
        return layers.add(layers.linear(gated, last), rows, f"{block}.sum")

    def _attend(
        self, layers: LayerEmitter, rows: ir.Value, context: ir.Value, name: str
    ) -> ir.Value:
        output = f"{name}.to_out.0"
        heads = layers.attention(
            layers.linear(rows, f"{name}.to_q", bias=False),
            layers.linear(context, f"{name}.to_k", bias=False),
            layers.linear(context, f"{name}.to_v", bias=False, reader=output),
            name,
            self.num_heads,
            self.channels // self.num_heads,
        )
        return layers.linear(heads, output)
