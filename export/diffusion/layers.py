"""The layers that all components are made of, emitted by the names of their tensors.

Images are [B, C, H, W]; rows are their pixels as a sequence, [B, H * W, C]. Nodes are named after
the module that they come from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from export.diffusion.doubling import PHASES, interleave
from export.diffusion.quantization.int8 import Int8Emitter
from export.diffusion.quantization.precision import Int8Precision, WatchfulPrecision
from export.graph import CONTRIB, GraphBuilder
from export.linear import LinearEmitter, Projection
from export.precision import LayoutChooser
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles

Advance = Callable[[str], None]  # told each part of a component that is done

Pads = tuple[int, int, int, int]  # top, left, bottom, right

SAME_3X3: Pads = (1, 1, 1, 1)


class LayerEmitter:
    """Writes the weights of layers and emits their nodes.

    Args:
        graph: Takes the nodes.
        tensors: The component's tensors.
        precision: Decides the layout of each convolution and matrix multiplication.
    """

    def __init__(self, graph: GraphBuilder, tensors: TensorFiles, precision: LayoutChooser) -> None:
        self.graph = graph
        self._tensors = tensors
        self._precision = precision
        self._linear = LinearEmitter(graph, tensors, precision, None)
        ranges = precision.ranges if isinstance(precision, Int8Precision) else {}
        self._int8 = Int8Emitter(graph, tensors, ranges, precision.int8_max)

    def weight(self, tensor: str, shape: tuple[int, ...] | None = None) -> ir.Value:
        """A tensor as it is stored, or in another shape."""
        array = self._tensors.read(tensor)
        return self.graph.weight(tensor, array if shape is None else array.reshape(shape))

    def table(self, tensor: str) -> ir.Value:
        """A tensor whose rows are looked up, such as an embedding; it is never held whole."""
        blocks = (rows for _, rows in self._tensors.row_blocks(tensor))
        return self.graph.weight_in_blocks(tensor, self._tensors.shape(tensor), blocks)

    def read(self, tensor: str) -> FloatArray:
        """A tensor's numbers, for weights that are not written as they are stored."""
        return self._tensors.read(tensor)

    def convolution(
        self, x: ir.Value, name: str, *, stride: int = 1, pads: Pads = SAME_3X3
    ) -> ir.Value:
        """[B, C, H, W] -> [B, N, H', W'].

        Raises:
            ValueError: The node is to have a layout that it cannot have.
        """
        weight = self._tensors.read(f"{name}.weight")
        if self._is_int8_convolution(name):
            levels = self._int8.convolve(x, name, weight, stride, pads)
            return self._int8.dequantize(levels, name)
        bias = self.weight(f"{name}.bias")
        y = self._convolve(x, name, weight, bias, stride, pads)
        self._watch(name, x, y)
        return y

    def pointwise_convolution(self, x: ir.Value, name: str) -> ir.Value:
        """A kernel of one pixel, [B, C, H, W] -> [B, N, H, W]."""
        return self.convolution(x, name, pads=(0, 0, 0, 0))

    def doubling_convolution(self, x: ir.Value, name: str) -> ir.Value:
        """Make four of each pixel, then convolve 3 x 3: [B, C, H, W] -> [B, N, 2 * H, 2 * W]."""
        if self._is_int8_convolution(name):
            raise ValueError(f"{name} makes four of each pixel, which is fp32 only")
        weight, bias = self._tensors.read(f"{name}.weight"), self.weight(f"{name}.bias")
        parts = [
            self._convolve(x, f"{name}.{phase.name}", phase.weight(weight), bias, 1, phase.pads)
            for phase in PHASES
        ]
        return interleave(self.graph, parts, name)

    def linear(
        self, x: ir.Value, name: str, *, bias: bool = True, reader: str | None = None
    ) -> ir.Value:
        """[..., K] -> [..., N].

        Args:
            x: The input.
            name: The module's path.
            bias: Whether it has one.
            reader: The layer that alone reads the result, where nothing in between mixes channels
                or is more than linear: in int8 they can then have steps of their own.
        """
        if self._is_int8_linear(name):
            divided_for = reader if reader and self._is_int8_linear(reader) else None
            return self._int8.linear(x, name, bias=bias, reader=divided_for)
        self._watch(name, x)
        biases = (f"{name}.bias",) if bias else ()
        return self._linear.emit(x, Projection(name, (f"{name}.weight",), biases))

    def group_norm(self, x: ir.Value, name: str, num_groups: int, epsilon: float) -> ir.Value:
        """Normalize groups of channels, [B, C, H, W] in and out.

        com.microsoft's GroupNorm has no kernel for the CPU, and GroupNormalization is taken apart
        into more passes than these: on the CPU this is the fastest form, by 1.1 to 10 times.
        """
        graph, channels = self.graph, self._tensors.shape(f"{name}.weight")[0]
        by_group = graph.constant(f"by_{num_groups}_groups", np.array([0, num_groups, -1]))
        normalized = graph.op(
            "InstanceNormalization",
            [
                graph.op("Reshape", [x, by_group], f"{name}.by_group"),  # [B, G, C / G * H * W]
                graph.constant(f"ones_{num_groups}", np.ones(num_groups, np.float32)),
                graph.constant(f"zeros_{num_groups}", np.zeros(num_groups, np.float32)),
            ],
            f"{name}.normalized",
            epsilon=epsilon,
        )
        image = graph.op("Reshape", [normalized, self.shape_of(x, name)], f"{name}.image")
        per_channel = (channels, 1, 1)
        scaled = graph.op(
            "Mul", [image, self.weight(f"{name}.weight", per_channel)], f"{name}.scaled"
        )
        return graph.op("Add", [scaled, self.weight(f"{name}.bias", per_channel)], name)

    def layer_norm(
        self, x: ir.Value, name: str, epsilon: float, reader: str | None = None
    ) -> ir.Value:
        """Normalize the last axis; `reader` is the first of the layers that alone read it.

        SkipLayerNormalization would take in the additions before it, but on the CPU its kernel
        takes 3 to 8 times as long as two additions and this one, and is less precise.
        """
        names = (f"{name}.weight", f"{name}.bias")
        if reader is not None and self._is_int8_linear(reader):
            weights = (self._int8.divide(self.read(one), reader) for one in names)
            inputs = [self.graph.weight(*one) for one in zip(names, weights, strict=True)]
        else:
            inputs = [self.weight(one) for one in names]
        return self.graph.op(
            "LayerNormalization",
            [x, *inputs],
            name,
            axis=-1,
            epsilon=epsilon,
        )

    def silu(self, x: ir.Value) -> ir.Value:
        return self.quick_gelu(x, "silu", alpha=1.0)

    def quick_gelu(self, x: ir.Value, name: str, alpha: float) -> ir.Value:
        """x * sigmoid(alpha * x); with alpha = 1 that is SiLU, in one node instead of two."""
        return self.graph.op("QuickGelu", [x], f"{x.name}.{name}", domain=CONTRIB, alpha=alpha)

    def gelu(self, x: ir.Value) -> ir.Value:
        """The exact form, by the error function."""
        return self.graph.op("Gelu", [x], f"{x.name}.gelu")

    def attention(
        self,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        name: str,
        num_heads: int,
        head_size: int,
        *,
        is_causal: bool = False,
    ) -> ir.Value:
        """Queries [B, S, C] over keys and values [B, T, C] -> [B, S, C], where C is all heads'."""
        return self.graph.op(
            "MultiHeadAttention",
            [query, key, value],
            f"{name}.heads",
            domain=CONTRIB,
            num_heads=num_heads,
            scale=head_size**-0.5,
            unidirectional=int(is_causal),
        )

    def moved(self, x: ir.Value, reader: str, move: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """`move(x)`, which only copies values, for `reader` and other layers of its layout.

        Where they read uint8 that is moved, which is a quarter of the bytes.
        """
        if self._is_int8_linear(reader):
            return self._int8.moved(x, reader, move)
        return move(x)

    def image_to_rows(self, image: ir.Value, name: str) -> ir.Value:
        """[B, C, H, W] -> [B, H * W, C]."""
        graph = self.graph
        flat_pixels = graph.constant("flat_pixels", np.array([0, 0, -1]))
        channels_first = graph.op("Reshape", [image, flat_pixels], f"{name}.pixels")
        return graph.op("Transpose", [channels_first], f"{name}.rows", perm=[0, 2, 1])

    def rows_to_image(self, rows: ir.Value, image: ir.Value, name: str) -> ir.Value:
        """[B, H * W, C] -> the shape of `image`, [B, C, H, W]."""
        channels_first = self.graph.op("Transpose", [rows], f"{name}.channels", perm=[0, 2, 1])
        return self.graph.op(
            "Reshape", [channels_first, self.shape_of(image, name)], f"{name}.image"
        )

    def shape_of(self, x: ir.Value, name: str) -> ir.Value:
        return self.graph.op("Shape", [x], f"{name}.shape")

    def add(self, x: ir.Value, y: ir.Value, name: str) -> ir.Value:
        return self.graph.op("Add", [x, y], name)

    def _convolve(
        self,
        x: ir.Value,
        name: str,
        weight: FloatArray,
        bias: ir.Value,
        stride: int,
        pads: Pads,
    ) -> ir.Value:
        return self.graph.op(
            "Conv",
            [x, self.graph.weight(f"{name}.weight", weight), bias],
            name,
            kernel_shape=list(weight.shape[2:]),
            pads=list(pads),
            strides=[stride, stride],
        )

    def _is_int8_linear(self, name: str) -> bool:
        return self._precision.layout(name) == "int8" and self._int8.has_ranges(name)

    def _is_int8_convolution(self, name: str) -> bool:
        layout = self._precision.layout(name)
        if layout == "int8" and not self._int8.has_ranges(name):
            raise ValueError(f"{name} is a convolution, which is int8 only in a range")
        if layout not in ("fp32", "int8"):
            raise ValueError(f"{name} is a convolution, which can be fp32 or int8, not {layout}")
        return layout == "int8"

    def _watch(self, name: str, x: ir.Value, y: ir.Value | None = None) -> None:
        if isinstance(self._precision, WatchfulPrecision):
            self._precision.watch(name, x, y)
