"""Joint attention: rows of an image and of a text, each with layers of its own, see all rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.diffusion.dit.rotation import Rotation
from export.diffusion.layers import LayerEmitter
from export.diffusion.shapes import Shapes, linear_shapes

EPSILON = 1e-6
_END = np.iinfo(np.int64).max

# The layers of one kind of rows: queries, keys, values, and the norms of the first two.
IMAGE_LAYERS = ("to_q", "to_k", "to_v", "norm_q", "norm_k")
TEXT_LAYERS = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention.

    Attributes:
        count: How many there are.
        width: Numbers in each.
        normalized: Whether queries and keys are RMS-normalized, head by head.
    """

    count: int
    width: int
    normalized: bool

    @property
    def total_width(self) -> int:
        return self.count * self.width

    def tensors(self, name: str, layers: tuple[str, ...]) -> Shapes:
        """The projections, from rows as wide as all heads together, and the norms."""
        *projections, query_norm, key_norm = layers
        shapes: Shapes = {}
        for layer in projections:
            shapes |= linear_shapes(f"{name}.{layer}", self.total_width, self.total_width)
        if self.normalized:
            shapes |= {f"{name}.{norm}.weight": (self.width,) for norm in (query_norm, key_norm)}
        return shapes

    def project(
        self, layers: LayerEmitter, rows: ir.Value, name: str, names: tuple[str, ...]
    ) -> list[ir.Value]:
        """Queries, keys and values, each [B, S, total_width]."""
        *projections, query_norm, key_norm = names
        query, key, value = (layers.linear(rows, f"{name}.{layer}") for layer in projections)
        if self.normalized:
            query = self._normalize(layers, query, f"{name}.{query_norm}")
            key = self._normalize(layers, key, f"{name}.{key_norm}")
        return [query, key, value]

    def attend(
        self,
        layers: LayerEmitter,
        projected: list[ir.Value],
        name: str,
        rotation: Rotation | None = None,
    ) -> ir.Value:
        """What the heads read. [B, S, total_width]"""
        query, key, value = projected
        if rotation is not None:
            query = rotation.emit(layers, query, self.count, f"{name}.query.turned")
            key = rotation.emit(layers, key, self.count, f"{name}.key.turned")
        return layers.attention(query, key, value, name, self.count, self.width)

    def _normalize(self, layers: LayerEmitter, x: ir.Value, name: str) -> ir.Value:
        graph = layers.graph
        by_head = graph.constant("by_head", np.array([0, 0, self.count, self.width]))
        flat = graph.constant("flat_heads", np.array([0, 0, self.total_width]))
        split = graph.op("Reshape", [x, by_head], f"{name}.by_head")  # [B, S, count, width]
        normed = graph.op(
            "SimplifiedLayerNormalization",
            [split, layers.weight(f"{name}.weight")],
            name,
            axis=-1,
            epsilon=EPSILON,
        )
        return graph.op("Reshape", [normed, flat], f"{name}.flat")


@dataclass(frozen=True, slots=True)
class JointAttention:
    """The attention of a block with both kinds of rows.

    Attributes:
        name: The module's path.
        heads: Its heads.
        gives_text: Whether the block goes on with the text's rows.
    """

    name: str
    heads: Heads
    gives_text: bool

    def tensors(self) -> Shapes:
        width = self.heads.total_width
        shapes = self.heads.tensors(self.name, IMAGE_LAYERS)
        shapes |= self.heads.tensors(self.name, TEXT_LAYERS)
        shapes |= linear_shapes(f"{self.name}.to_out.0", width, width)
        if self.gives_text:
            shapes |= linear_shapes(f"{self.name}.to_add_out", width, width)
        return shapes

    def emit(
        self, layers: LayerEmitter, image: ir.Value, text: ir.Value, rotation: Rotation | None
    ) -> tuple[ir.Value, ir.Value | None]:
        """Image [B, S, C] and text [B, T, C] -> what both read; the text's is None at the end."""
        name = self.name
        from_image = self.heads.project(layers, image, name, IMAGE_LAYERS)
        from_text = self.heads.project(layers, text, name, TEXT_LAYERS)
        joined = [
            layers.graph.op("Concat", [behind, before], f"{name}.joined_{kind}", axis=1)
            for kind, behind, before in zip("qkv", from_text, from_image, strict=True)
        ]
        read = self.heads.attend(layers, joined, name, rotation)
        of_text, of_image = split_rows(layers, read, text, name)
        image = layers.linear(of_image, f"{name}.to_out.0")
        return image, layers.linear(of_text, f"{name}.to_add_out") if self.gives_text else None


@dataclass(frozen=True, slots=True)
class ImageAttention:
    """Rows of the image that see each other only."""

    name: str
    heads: Heads

    def tensors(self) -> Shapes:
        width = self.heads.total_width
        shapes = self.heads.tensors(self.name, IMAGE_LAYERS)
        return shapes | linear_shapes(f"{self.name}.to_out.0", width, width)

    def emit(self, layers: LayerEmitter, image: ir.Value) -> ir.Value:
        """[B, S, C] in and out."""
        projected = self.heads.project(layers, image, self.name, IMAGE_LAYERS)
        return layers.linear(
            self.heads.attend(layers, projected, self.name), f"{self.name}.to_out.0"
        )


def split_rows(
    layers: LayerEmitter, rows: ir.Value, text: ir.Value, name: str
) -> tuple[ir.Value, ir.Value]:
    """Rows [B, T + S, C] as the first T, as many as `text` has, and the others."""
    graph = layers.graph
    num_text = graph.op("Shape", [text], f"{name}.num_text", start=1, end=2)
    first = graph.constant("first_row", np.array([0]))
    end = graph.constant("behind_last_row", np.array([_END]))
    axis = graph.constant("row_axis", np.array([1]))
    return (
        graph.op("Slice", [rows, first, num_text, axis], f"{name}.of_text"),
        graph.op("Slice", [rows, num_text, end, axis], f"{name}.of_image"),
    )
