"""Where each token of text and picture is, as real cosines and sines, and which tokens count.

A picture's patches lie around its centre: row y of H is at y - ceil(H / 2), and so are columns. The
text goes on along the diagonal, from max(H, W) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.diffusion.dit.attention import Heads
from export.diffusion.dit.patches import Grid
from export.diffusion.dit.rotation import Rotation
from export.graph import GraphBuilder, scalar

_THETA = 10_000.0
_MASKED = -1e5
EXTRA_CHANNELS = 8  # of a head, for the mask; a multiple of what vector registers hold


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """What every block shares; L counts the tokens of the text and then those of the picture.

    Attributes:
        rotation: Of the heads by the tokens' places.
        query_channels: [B, L, heads, EXTRA_CHANNELS] of ones.
        key_channels: The same shape, zeros; for padding so far below that nobody attends to it.
    """

    rotation: Rotation
    query_channels: ir.Value
    key_channels: ir.Value


class LayoutEmitter:
    """Emits the layout from the sizes of the inputs.

    Args:
        heads: The heads of the attentions.
        axes_dims: Channels of a head that are turned by the frame, the row and the column.
        graph: Takes the nodes.
    """

    def __init__(self, heads: Heads, axes_dims: tuple[int, int, int], graph: GraphBuilder) -> None:
        self._heads = heads
        self._axes_dims = axes_dims
        self._graph = graph

    def emit(self, grid: Grid, context: ir.Value, lengths: ir.Value) -> TokenLayout:
        """From the patches, context [B, T, width] and int64 lengths of texts [B]."""
        graph = self._graph
        num_text = graph.op("Shape", [context], "num_text_tokens", start=1, end=2)  # [1]
        num_image = graph.op("Mul", [grid.height, grid.width], "num_image_tokens")
        angles = graph.op(
            "Concat",
            [self._text_angles(grid, num_text), self._image_angles(grid)],
            "angles",
            axis=0,
        )  # [L, head_dim / 2]
        rotation = Rotation(
            graph.op("Cos", [angles], "angles.cos"), graph.op("Sin", [angles], "angles.sin")
        )
        return TokenLayout(rotation, *self._mask_channels(lengths, num_text, num_image))

    def _image_angles(self, grid: Grid) -> ir.Value:
        """[rows * columns, head_dim / 2]"""
        graph = self._graph
        rows = self._centred(grid.height, "rows", axes=[1, 2])  # [rows, 1, 1]
        columns = self._centred(grid.width, "columns", axes=[0, 2])  # [1, columns, 1]
        turned = [
            graph.op("Mul", [positions, self._frequencies(axis)], f"{positions.name}.angles")
            for axis, positions in enumerate((rows, columns), start=1)
        ]
        angles = graph.op("Add", list(turned), "grid.angles")  # [rows, columns, head_dim / 2]
        flat = graph.constant("flat_grid", np.array([-1, self._heads.width // 2]))
        return graph.op("Reshape", [angles, flat], "image.angles")

    def _text_angles(self, grid: Grid, num_text: ir.Value) -> ir.Value:
        """[T, head_dim / 2]"""
        graph = self._graph
        two = graph.constant("two", np.array([2]))
        longest = graph.op("Max", [grid.height, grid.width], "longest_side")
        first = graph.op("Div", [longest, two], "text.first_position")
        end = graph.op("Add", [first, num_text], "text.end")
        column = self._column(self._range(first, end, "text.positions"), axes=[1])  # [T, 1]
        return graph.op("Mul", [column, self._frequencies(None)], "text.angles")

    def _centred(self, size: ir.Value, name: str, axes: list[int]) -> ir.Value:
        graph = self._graph
        half = graph.op("Div", [size, graph.constant("two", np.array([2]))], f"{name}.half")
        first = graph.op("Sub", [half, size], f"{name}.first")
        return self._column(self._range(first, half, f"{name}.positions"), axes)

    def _range(self, first: ir.Value, end: ir.Value, name: str) -> ir.Value:
        """`first` [1] to `end` [1], half-open.

        Sums with shapes stay in what a range is told of: a GPU's runtime computes those on the
        host, and nothing has to be sent there.
        """
        graph = self._graph
        step = graph.constant("range.step", scalar(1, np.int64))
        bounds = [
            graph.op("Squeeze", [bound], f"{name}.{kind}")
            for kind, bound in (("first", first), ("end", end))
        ]
        return graph.op("Range", [*bounds, step], name)

    def _column(self, positions: ir.Value, axes: list[int]) -> ir.Value:
        graph, name = self._graph, positions.name
        number = graph.op("Cast", [positions], f"{name}.float", to=ir.DataType.FLOAT.value)
        extra = graph.constant(f"{name}.axes", np.array(axes))
        return graph.op("Unsqueeze", [number, extra], f"{name}.column")

    def _frequencies(self, axis: int | None) -> ir.Value:
        """Those of one axis, zeros for the others; or those of all: [head_dim / 2]."""
        parts = [
            _axis_frequencies(dim) * np.float32(axis is None or axis == index)
            for index, dim in enumerate(self._axes_dims)
        ]
        name = "all" if axis is None else str(axis)
        return self._graph.constant(f"frequencies.{name}", np.concatenate(parts))

    def _mask_channels(
        self, lengths: ir.Value, num_text: ir.Value, num_image: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """A mask as channels of the heads: padding's product with any query is far below.

        An input for a mask would make the attention write out the products of all tokens, which at
        4,096 patches is 1.6 GB a row.
        """
        graph = self._graph
        nobody = graph.constant("mask.first", np.array([0]))
        tokens = self._range(nobody, num_text, "mask.tokens")
        rows = graph.op("Unsqueeze", [lengths, graph.constant("last", np.array([-1]))], "limits")
        counts = graph.op("Less", [tokens, rows], "counts")  # [B, T]
        nothing = graph.constant("nothing", scalar(0, np.float32))
        masked = graph.constant("masked", scalar(_MASKED, np.float32))
        bias = graph.op("Where", [counts, nothing, masked], "text_bias")
        no_pads = graph.constant("no_pads", np.array([0, 0, 0]))
        pads = graph.op("Concat", [no_pads, num_image], "bias.pads", axis=0)
        bias = graph.op("Pad", [bias, pads], "bias")  # [B, L]
        over_heads = graph.constant("over_heads", np.array([2, 3]))
        column = graph.op("Unsqueeze", [bias, over_heads], "bias.column")  # [B, L, 1, 1]
        by_head = np.array([1, 1, self._heads.count, EXTRA_CHANNELS])
        spread = graph.constant("mask.spread", by_head)
        keys = graph.op("Expand", [column, spread], "key_channels")
        ones = graph.constant("one_share", np.ones(1, np.float32))
        shape = graph.op("Shape", [keys], "mask.shape")
        return graph.op("Expand", [ones, shape], "query_channels"), keys


def _axis_frequencies(dim: int) -> NDArray[np.float32]:
    """[dim / 2], rounded as in the reference."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    frequencies: NDArray[np.float32] = 1 / np.power(np.float32(_THETA), exponents)
    return frequencies
