"""A block of the transformer: two streams with layers of their own, one attention over both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.diffusion.dit.attention import IMAGE_LAYERS, TEXT_LAYERS, Heads, split_rows
from export.diffusion.dit.block import FeedForward
from export.diffusion.dit.modulation import add_gated, emit_modulation, modulated_norm
from export.diffusion.layers import LayerEmitter
from export.diffusion.qwen_image.positions import TokenLayout
from export.diffusion.shapes import Shapes, linear_shapes
from export.graph import CONTRIB

# Shift, scale and gate, for the attention and then for the feed-forward layer.
_NUM_MODULATIONS = 6


@dataclass(frozen=True, slots=True)
class Stream:
    """The layers of one kind of rows inside a block.

    Attributes:
        block: The block's path.
        heads: The heads of the block's attention.
        name: What its layers are called, img or txt.
        attention: Its projections and norms of the attention.
        output: The layer behind the attention.
    """

    block: str
    heads: Heads
    name: str
    attention: tuple[str, ...]
    output: str

    def tensors(self) -> Shapes:
        width = self.heads.total_width
        shapes = linear_shapes(f"{self.block}.{self.name}_mod.1", width, _NUM_MODULATIONS * width)
        shapes |= self.heads.tensors(f"{self.block}.attn", self.attention)
        shapes |= linear_shapes(f"{self.block}.attn.{self.output}", width, width)
        return shapes | self._feed_forward.tensors()

    def modulations(self, layers: LayerEmitter, time: ir.Value) -> list[ir.Value]:
        """What the time [B, 1, width] makes of this stream's rows, six times [B, 1, width]."""
        return emit_modulation(layers, time, f"{self.block}.{self.name}_mod.1", _NUM_MODULATIONS)

    def project(self, layers: LayerEmitter, rows: ir.Value, told: list[ir.Value]) -> list[ir.Value]:
        """Queries, keys and values of the stream's rows."""
        shift, scale, *_ = told
        normed = modulated_norm(layers, rows, scale, shift, f"{self.block}.{self.name}_norm1")
        return self.heads.project(layers, normed, f"{self.block}.attn", self.attention)

    def transform(
        self, layers: LayerEmitter, rows: ir.Value, read: ir.Value, told: list[ir.Value]
    ) -> ir.Value:
        """Add what the heads read, and then what the feed-forward layer makes of it."""
        name = f"{self.block}.{self.name}"
        _, _, gate, shift, scale, mlp_gate = told
        output = layers.linear(read, f"{self.block}.attn.{self.output}")
        rows = add_gated(layers, rows, gate, output, f"{name}_attention.sum")
        normed = modulated_norm(layers, rows, scale, shift, f"{name}_norm2")
        hidden = self._feed_forward.emit(layers, normed)
        return add_gated(layers, rows, mlp_gate, hidden, f"{name}_mlp.sum")

    @property
    def _feed_forward(self) -> FeedForward:
        return FeedForward(f"{self.block}.{self.name}_mlp", self.heads.total_width)


@dataclass(frozen=True, slots=True)
class JointBlock:
    """One block.

    Attributes:
        name: The module's path.
        heads: The heads of its attention.
        is_last: Whether nobody reads its text.
    """

    name: str
    heads: Heads
    is_last: bool = False

    @property
    def text(self) -> Stream:
        return Stream(self.name, self.heads, "txt", TEXT_LAYERS, "to_add_out")

    @property
    def image(self) -> Stream:
        return Stream(self.name, self.heads, "img", IMAGE_LAYERS, "to_out.0")

    def tensors(self) -> Shapes:
        return self.image.tensors() | self.text.tensors()

    def emit(
        self,
        layers: LayerEmitter,
        image: ir.Value,
        text: ir.Value,
        time: ir.Value,
        layout: TokenLayout,
    ) -> tuple[ir.Value, ir.Value]:
        """Image [B, S, width], text [B, T, width] and the active time [B, 1, width].

        The last block leaves the text as it is.
        """
        told_image = self.image.modulations(layers, time)
        told_text = self.text.modulations(layers, time)
        from_text = self.text.project(layers, text, told_text)
        from_image = self.image.project(layers, image, told_image)
        read = self._attend(layers, from_text, from_image, layout)
        of_text, of_image = split_rows(layers, read, text, f"{self.name}.attn")
        image = self.image.transform(layers, image, of_image, told_image)
        if self.is_last:
            return image, text
        return image, self.text.transform(layers, text, of_text, told_text)

    def _attend(
        self,
        layers: LayerEmitter,
        from_text: list[ir.Value],
        from_image: list[ir.Value],
        layout: TokenLayout,
    ) -> ir.Value:
        """What the heads read from both. [B, T + S, width]"""
        name, heads = f"{self.name}.attn", self.heads
        query, key, value = (
            layers.graph.op("Concat", [first, second], f"{name}.joined_{kind}", axis=1)
            for kind, first, second in zip("qkv", from_text, from_image, strict=True)
        )
        return layers.graph.op(
            "MultiHeadAttention",
            [
                self._place(layers, query, layout, layout.query_channels, f"{name}.query"),
                self._place(layers, key, layout, layout.key_channels, f"{name}.key"),
                value,
            ],
            f"{name}.heads",
            domain=CONTRIB,
            num_heads=heads.count,
            scale=1 / math.sqrt(heads.width),
        )

    def _place(
        self,
        layers: LayerEmitter,
        x: ir.Value,
        layout: TokenLayout,
        channels: ir.Value,
        name: str,
    ) -> ir.Value:
        """Turn heads by their places, and give each the channels of the mask."""
        graph = layers.graph
        turned = layout.rotation.emit(layers, x, self.heads.count, f"{name}.turned")
        by_head = graph.constant("by_head", np.array([0, 0, self.heads.count, self.heads.width]))
        split = graph.op("Reshape", [turned, by_head], f"{name}.by_head")
        masked = graph.op("Concat", [split, channels], f"{name}.masked", axis=-1)
        flat = graph.constant("flat_masked_heads", np.array([0, 0, -1]))
        return graph.op("Reshape", [masked, flat], name)
