"""Residual blocks of convolutions, and the convolutions that halve or double an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import SAME_3X3, LayerEmitter
from export.diffusion.shapes import Shapes, convolution_shapes, linear_shapes, norm_shapes

_AT_BOTTOM_AND_RIGHT = (0, 0, 1, 1)


@dataclass(frozen=True, slots=True)
class Normalization:
    """The group norms of a component: their groups and what keeps them from dividing by zero."""

    num_groups: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Resnet:
    """Two convolutions around a shortcut; in between comes in what time it is.

    Attributes:
        name: The module's path.
        in_channels: Channels that it reads.
        out_channels: Channels that it gives.
        time_width: The width of the time embedding; None where the block has none.
        norm: Its group norms.
    """

    name: str
    in_channels: int
    out_channels: int
    time_width: int | None
    norm: Normalization

    @property
    def has_shortcut_convolution(self) -> bool:
        return self.in_channels != self.out_channels

    def tensors(self) -> Shapes:
        name, num_in, num_out = self.name, self.in_channels, self.out_channels
        shapes = norm_shapes(f"{name}.norm1", num_in) | norm_shapes(f"{name}.norm2", num_out)
        shapes |= convolution_shapes(f"{name}.conv1", num_in, num_out)
        shapes |= convolution_shapes(f"{name}.conv2", num_out, num_out)
        if self.time_width is not None:
            shapes |= linear_shapes(f"{name}.time_emb_proj", self.time_width, num_out)
        if self.has_shortcut_convolution:
            shapes |= convolution_shapes(f"{name}.conv_shortcut", num_in, num_out, kernel=1)
        return shapes

    def emit(self, layers: LayerEmitter, x: ir.Value, time: ir.Value | None) -> ir.Value:
        """[B, in_channels, H, W] -> [B, out_channels, H, W]; `time` [B, time_width] is active."""
        name = self.name
        hidden = layers.convolution(self._norm_and_activate(layers, x, "norm1"), f"{name}.conv1")
        if time is not None:
            shift = layers.linear(time, f"{name}.time_emb_proj")  # [B, out_channels]
            over_pixels = layers.graph.constant("over_pixels", np.array([2, 3]))
            shift = layers.graph.op("Unsqueeze", [shift, over_pixels], f"{name}.time_shift")
            hidden = layers.add(hidden, shift, f"{name}.timed")
        hidden = layers.convolution(
            self._norm_and_activate(layers, hidden, "norm2"), f"{name}.conv2"
        )
        if self.has_shortcut_convolution:
            x = layers.pointwise_convolution(x, f"{name}.conv_shortcut")
        return layers.add(x, hidden, f"{name}.sum")

    def _norm_and_activate(self, layers: LayerEmitter, x: ir.Value, norm: str) -> ir.Value:
        return layers.silu(
            layers.group_norm(x, f"{self.name}.{norm}", self.norm.num_groups, self.norm.epsilon)
        )


@dataclass(frozen=True, slots=True)
class Downsample:
    """A convolution that halves height and width; without padding it pads at the end only."""

    name: str
    channels: int
    padding: int

    def tensors(self) -> Shapes:
        return convolution_shapes(f"{self.name}.conv", self.channels, self.channels)

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        pads = SAME_3X3 if self.padding else _AT_BOTTOM_AND_RIGHT
        return layers.convolution(x, f"{self.name}.conv", stride=2, pads=pads)


@dataclass(frozen=True, slots=True)
class Upsample:
    """Every pixel four times, then a convolution of that."""

    name: str
    channels: int

    def tensors(self) -> Shapes:
        return convolution_shapes(f"{self.name}.conv", self.channels, self.channels)

    def emit(self, layers: LayerEmitter, x: ir.Value, like: ir.Value | None = None) -> ir.Value:
        """[B, C, H, W] -> [B, C, 2 * H, 2 * W], or the height and width of `like`.

        Those can be one less than double: an odd size rounds up where it is halved.
        """
        reader = f"{self.name}.conv"
        if like is None:
            return layers.doubling_convolution(x, reader)
        graph = layers.graph
        # All four sizes: with the pixels' alone and `axes`, the runtime fails to load the graph
        # once it has moved a Transpose of quantized convolutions across the Resize.
        sizes = [
            graph.op("Shape", [x], f"{self.name}.rows_and_channels", start=0, end=2),
            graph.op("Shape", [like], f"{self.name}.pixels", start=2, end=4),
        ]
        size = graph.op("Concat", list(sizes), f"{self.name}.size", axis=0)

        def resize(image: ir.Value) -> ir.Value:
            return graph.op(
                "Resize",
                [image, None, None, size],
                f"{self.name}.resized",
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )

        return layers.convolution(layers.moved(x, reader, resize), reader)
