"""Latents as rows of square patches, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import LayerEmitter


@dataclass(frozen=True, slots=True)
class Grid:
    """How many patches an image has, and how many latents.

    Attributes:
        height: int64 [1], patches from top to bottom.
        width: int64 [1], patches from left to right.
        latent_size: int64 [2], height and width in latents.
    """

    height: ir.Value
    width: ir.Value
    latent_size: ir.Value


def split_patches(
    layers: LayerEmitter, latents: ir.Value, channels: int, size: int
) -> tuple[ir.Value, Grid]:
    """[B, channels, H, W] -> rows [B, h * w, channels * size * size], the channels outermost."""
    graph = layers.graph
    latent_size = graph.op("Shape", [latents], "latent_size", start=2, end=4)
    divisor = graph.constant("patch_size", np.array([size]))
    grid_size = graph.op("Div", [latent_size, divisor], "grid")
    height, width = graph.ops("Split", [grid_size], ["grid.height", "grid.width"], num_outputs=2)
    grid = Grid(height, width, latent_size)
    head = graph.constant("patches.head", np.array([0, channels]))
    pieces: list[ir.Value | None] = [head, height, divisor, width, divisor]
    shape = graph.op("Concat", pieces, "patches.shape", axis=0)
    squares = graph.op("Reshape", [latents, shape], "patches.squares")  # [B, C, h, p, w, p]
    sorted_ = graph.op("Transpose", [squares], "patches.sorted", perm=[0, 2, 4, 1, 3, 5])
    flat = graph.constant("patches.flat", np.array([0, -1, channels * size * size]))
    return graph.op("Reshape", [sorted_, flat], "patches"), grid


def join_patches(
    layers: LayerEmitter,
    rows: ir.Value,
    grid: Grid,
    channels: int,
    size: int,
    *,
    channels_last: bool = False,
) -> ir.Value:
    """Rows [B, h * w, channels * size * size] -> [B, channels, H, W].

    Args:
        layers: Takes the nodes.
        rows: What the last layer gives.
        grid: The patches of the latents.
        channels: Channels of a latent.
        size: Latents along a side of a patch.
        channels_last: Whether channels are innermost in a row, not outermost.
    """
    graph = layers.graph
    head = graph.constant("joined.head", np.array([0]))
    inner, perm = [channels, size, size], [0, 3, 1, 4, 2, 5]
    if channels_last:
        inner, perm = [size, size, channels], [0, 5, 1, 3, 2, 4]
    tail = graph.constant("joined.tail", np.array(inner))
    shape = graph.op("Concat", [head, grid.height, grid.width, tail], "joined.shape", axis=0)
    squares = graph.op("Reshape", [rows, shape], "joined.squares")
    sorted_ = graph.op("Transpose", [squares], "joined.sorted", perm=perm)  # [B, C, h, p, w, p]
    outer = graph.constant("joined.outer", np.array([0, channels]))
    size_ = graph.op("Concat", [outer, grid.latent_size], "joined.size", axis=0)
    return graph.op("Reshape", [sorted_, size_], "joined")
