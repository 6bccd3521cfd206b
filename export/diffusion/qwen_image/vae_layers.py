"""The blocks of the autoencoder, for one frame of what is made for videos.

Its convolutions over time are causal: they see the frames before, which for the first one are
zeros. So one frame meets only the last slice in time of each kernel, and those that halve or double
the number of frames do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import LayerEmitter
from export.diffusion.resnet import Downsample, Upsample
from export.diffusion.shapes import Shapes, convolution_shapes, linear_shapes
from export.graph import scalar

_SMALLEST_NORM = 1e-12
ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "proj")


class VAEModule(Protocol):
    """A part of either half."""

    @property
    def name(self) -> str: ...

    def tensors(self) -> Shapes:
        """What the part reads, as the graph sees it: kernels of one frame."""
        ...

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        """[B, C, H, W] -> [B, C', H', W']."""
        ...


def rms_norm_shapes(name: str, channels: int) -> Shapes:
    return {f"{name}.gamma": (channels, 1, 1)}


def rms_norm(layers: LayerEmitter, x: ir.Value, name: str) -> ir.Value:
    """Divide every pixel by the root mean square of its channels, [B, C, H, W] in and out."""
    graph = layers.graph
    gamma = layers.read(f"{name}.gamma")  # [C, 1, 1]
    channels = graph.constant("channel_axis", np.array([1]))
    norm = graph.op("ReduceL2", [x, channels], f"{name}.norm", keepdims=1)  # [B, 1, H, W]
    smallest = graph.constant("smallest_norm", scalar(_SMALLEST_NORM, np.float32))
    bounded = graph.op("Max", [norm, smallest], f"{name}.bounded")
    unit = graph.op("Div", [x, bounded], f"{name}.unit")
    scale = graph.weight(f"{name}.scale", gamma * np.float32(len(gamma) ** 0.5))
    return graph.op("Mul", [unit, scale], name)


@dataclass(frozen=True, slots=True)
class ResidualBlock:
    """Two convolutions around a shortcut."""

    name: str
    in_channels: int
    out_channels: int

    def tensors(self) -> Shapes:
        name, num_in, num_out = self.name, self.in_channels, self.out_channels
        shapes = rms_norm_shapes(f"{name}.norm1", num_in)
        shapes |= rms_norm_shapes(f"{name}.norm2", num_out)
        shapes |= convolution_shapes(f"{name}.conv1", num_in, num_out)
        shapes |= convolution_shapes(f"{name}.conv2", num_out, num_out)
        if num_in != num_out:
            shapes |= convolution_shapes(f"{name}.conv_shortcut", num_in, num_out, kernel=1)
        return shapes

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        name, hidden = self.name, x
        for index in (1, 2):
            active = layers.silu(rms_norm(layers, hidden, f"{name}.norm{index}"))
            hidden = layers.convolution(active, f"{name}.conv{index}")
        if self.in_channels != self.out_channels:
            x = layers.pointwise_convolution(x, f"{name}.conv_shortcut")
        return layers.add(x, hidden, f"{name}.sum")


@dataclass(frozen=True, slots=True)
class PixelAttention:
    """Every pixel looks at every other, with one head over all channels."""

    name: str
    channels: int

    def tensors(self) -> Shapes:
        shapes = rms_norm_shapes(f"{self.name}.norm", self.channels)
        for layer in ATTENTION_LAYERS:
            shapes |= linear_shapes(f"{self.name}.{layer}", self.channels, self.channels)
        return shapes

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        name = self.name
        rows = layers.image_to_rows(rms_norm(layers, x, f"{name}.norm"), name)
        query, key, value = (
            layers.linear(rows, f"{name}.{layer}") for layer in ATTENTION_LAYERS[:3]
        )
        heads = layers.attention(query, key, value, name, 1, self.channels)
        attended = layers.linear(heads, f"{name}.{ATTENTION_LAYERS[3]}")
        return layers.add(layers.rows_to_image(attended, x, name), x, f"{name}.sum")


@dataclass(frozen=True, slots=True)
class Halve:
    """A convolution that halves height and width."""

    name: str
    channels: int

    def tensors(self) -> Shapes:
        return convolution_shapes(f"{self.name}.conv", self.channels, self.channels)

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        return Downsample(self.name, self.channels, padding=0).emit(layers, x)


@dataclass(frozen=True, slots=True)
class Double:
    """Every pixel four times, then a convolution to half as many channels."""

    name: str
    channels: int

    def tensors(self) -> Shapes:
        return convolution_shapes(f"{self.name}.conv", self.channels, self.channels // 2)

    def emit(self, layers: LayerEmitter, x: ir.Value) -> ir.Value:
        return Upsample(self.name, self.channels).emit(layers, x)
