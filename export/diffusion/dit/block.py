"""A block of SD3 and FLUX: joint attention and a feed-forward layer for each kind of rows.

Esser et al. 2024 (https://arxiv.org/abs/2403.03206).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from export.diffusion.dit.attention import Heads, ImageAttention, JointAttention
from export.diffusion.dit.modulation import (
    add_gated,
    emit_modulation,
    final_norm,
    modulated_norm,
)
from export.diffusion.dit.rotation import Rotation
from export.diffusion.layers import LayerEmitter
from export.diffusion.shapes import Shapes, linear_shapes

EXPANSION = 4  # the width of the feed-forward layer in widths of the block


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Two linear layers with a GELU in between."""

    name: str
    width: int

    def tensors(self) -> Shapes:
        inner = EXPANSION * self.width
        return linear_shapes(f"{self.name}.net.0.proj", self.width, inner) | linear_shapes(
            f"{self.name}.net.2", inner, self.width
        )

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        hidden = layers.linear(x, f"{self.name}.net.0.proj")
        return layers.linear(gelu_by_tanh(layers, hidden), f"{self.name}.net.2")


def gelu_by_tanh(layers: LayerEmitter, x: ir.Value) -> ir.Value:
    return layers.graph.op("Gelu", [x], f"{x.name}.gelu", approximate="tanh")


@dataclass(frozen=True, slots=True)
class JointBlock:
    """One block.

    Attributes:
        name: The module's path.
        heads: The heads of its attentions.
        is_last: Whether the text's rows end here, so that nothing is made of them.
        has_image_attention: Whether the image's rows also see each other alone (SD3.5 medium).
    """

    name: str
    heads: Heads
    is_last: bool = False
    has_image_attention: bool = False

    @property
    def attention(self) -> JointAttention:
        return JointAttention(f"{self.name}.attn", self.heads, gives_text=not self.is_last)

    @property
    def image_attention(self) -> ImageAttention:
        return ImageAttention(f"{self.name}.attn2", self.heads)

    def tensors(self) -> Shapes:
        width = self.heads.total_width
        num_image, num_text = 9 if self.has_image_attention else 6, 2 if self.is_last else 6
        shapes = linear_shapes(f"{self.name}.norm1.linear", width, num_image * width)
        shapes |= linear_shapes(f"{self.name}.norm1_context.linear", width, num_text * width)
        shapes |= self.attention.tensors() | self._feed_forward("ff").tensors()
        if self.has_image_attention:
            shapes |= self.image_attention.tensors()
        if not self.is_last:
            shapes |= self._feed_forward("ff_context").tensors()
        return shapes

    def emit(
        self,
        layers: LayerEmitter,
        image: ir.Value,
        text: ir.Value,
        time: ir.Value,
        rotation: Rotation | None = None,
    ) -> tuple[ir.Value, ir.Value]:
        """Image [B, S, C], text [B, T, C] and the active time [B, 1, C] -> image and text.

        The last block leaves the text as it is.
        """
        name = self.name
        count = 9 if self.has_image_attention else 6
        shift, scale, gate, *others = emit_modulation(layers, time, f"{name}.norm1.linear", count)
        normed = modulated_norm(layers, image, scale, shift, f"{name}.norm1")
        if self.is_last:
            normed_text = final_norm(layers, text, time, f"{name}.norm1_context")
            text_parts: list[ir.Value] = []
        else:
            text_shift, text_scale, *text_parts = emit_modulation(
                layers, time, f"{name}.norm1_context.linear", 6
            )
            normed_text = modulated_norm(
                layers, text, text_scale, text_shift, f"{name}.norm1_context"
            )
        read, read_by_text = self.attention.emit(layers, normed, normed_text, rotation)
        attended = add_gated(layers, image, gate, read, f"{name}.attn.sum")
        if self.has_image_attention:
            attended = self._attend_image(layers, image, attended, others[3:])
        image = self._transform(layers, attended, others[:3], "ff", "norm2")
        if read_by_text is None:
            return image, text
        text_gate, *others = text_parts
        text = add_gated(layers, text, text_gate, read_by_text, f"{name}.attn.text_sum")
        return image, self._transform(layers, text, others, "ff_context", "norm2_context")

    def _attend_image(
        self, layers: LayerEmitter, image: ir.Value, attended: ir.Value, parts: list[ir.Value]
    ) -> ir.Value:
        """The second attention reads what the first one read, not what that made of it."""
        shift, scale, gate = parts
        normed = modulated_norm(layers, image, scale, shift, f"{self.name}.norm1_2")
        read = self.image_attention.emit(layers, normed)
        return add_gated(layers, attended, gate, read, f"{self.name}.attn2.sum")

    def _transform(
        self, layers: LayerEmitter, rows: ir.Value, parts: list[ir.Value], name: str, norm: str
    ) -> ir.Value:
        shift, scale, gate = parts
        normed = modulated_norm(layers, rows, scale, shift, f"{self.name}.{norm}")
        hidden = self._feed_forward(name).emit(layers, normed)
        return add_gated(layers, rows, gate, hidden, f"{self.name}.{name}.sum")

    def _feed_forward(self, name: str) -> FeedForward:
        return FeedForward(f"{self.name}.{name}", self.heads.total_width)
