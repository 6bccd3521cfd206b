"""Which layers of an image model become int8: one table of node classes.

A node is named after its module. The first class of its kind of graph that has a pattern for it is
its class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import onnx_ir as ir

from export.diffusion.quantization.ranges import ActivationRange, FloatArray
from export.precision import INT8_MAX, Layout

if TYPE_CHECKING:  # the table of pipelines imports what is drawn, and that imports this
    from export.diffusion.pipelines import GraphKind


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes that are quantized alike.

    Attributes:
        name: As the manifest names it.
        kind: The graphs that it is about.
        patterns: Globs over the names of nodes.
        layout: Of its weights where int8 is asked for.
    """

    name: str
    kind: GraphKind
    patterns: tuple[str, ...]
    layout: Layout


_RESIDUAL_PATH = ("*.conv_shortcut", "*.downsamplers.*", "*.upsamplers.*")
_CONVOLUTIONS = ("*.conv1", "*.conv2")
_ATTENTIONS = ("*.attentions.*",)

NODE_CLASSES = (
    NodeClass("text_encoder", "text_encoder", ("*",), "fp32"),
    # No norm bounds what these read, and all that was computed before goes through them: with them
    # in int8 the demo loses 6 dB, at next to no gain for those of one pixel.
    NodeClass("denoiser residual path", "denoiser", _RESIDUAL_PATH, "fp32"),
    NodeClass("denoiser convolutions", "denoiser", _CONVOLUTIONS, "int8"),
    NodeClass("denoiser transformers", "denoiser", _ATTENTIONS, "int8"),
    # The first and the last convolution see four channels, in which every level counts.
    NodeClass("denoiser ends and time", "denoiser", ("*",), "fp32"),
    # Likewise: 9 dB of the decoder's own error. It runs once a picture.
    NodeClass("vae_decoder residual path", "vae_decoder", _RESIDUAL_PATH, "fp32"),
    NodeClass("vae_decoder convolutions", "vae_decoder", _CONVOLUTIONS, "int8"),
    NodeClass("vae_decoder attention", "vae_decoder", _ATTENTIONS, "fp32"),
    NodeClass("vae_decoder ends", "vae_decoder", ("*",), "fp32"),
    # It runs once for each picture that is edited.
    NodeClass("vae_encoder", "vae_encoder", ("*",), "fp32"),
)


def node_class(kind: GraphKind, node: str) -> NodeClass:
    """The class of a node."""
    return next(
        entry
        for entry in NODE_CLASSES
        if entry.kind == kind and any(fnmatchcase(node, pattern) for pattern in entry.patterns)
    )


def describe_layouts(precision: Layout, kinds: Collection[GraphKind]) -> dict[str, str]:
    """Node class -> layout, for the manifest of an engine with graphs of these kinds."""
    if precision == "int8":
        return {entry.name: entry.layout for entry in NODE_CLASSES if entry.kind in kinds}
    return dict.fromkeys(("text_encoder", "denoiser", "vae"), precision)


@dataclass(frozen=True, slots=True)
class NodeRanges:
    """What one node works in.

    Attributes:
        x: The range of what it reads.
        x_channels: The range of each channel of that.
        x_mean: The mean of each channel of that. [C]
        y: The range of each channel of what it gives; None of a matrix multiplication, which gives
            float32.
    """

    x: ActivationRange
    x_channels: tuple[ActivationRange, ...]
    x_mean: FloatArray
    y: tuple[ActivationRange, ...] | None = None


Ranges = Mapping[str, Mapping[str, NodeRanges]]  # by graph, then by node


@dataclass(frozen=True, slots=True)
class Int8Precision:
    """The layouts of one graph in int8, and the ranges that its quantized nodes work in.

    Attributes:
        kind: The graph's.
        ranges: By node. Without one, a matrix multiplication scales each row by its maximum.
        int8_max: The largest integer of weights.
    """

    kind: GraphKind
    ranges: Mapping[str, NodeRanges]
    int8_max: int = INT8_MAX

    def layout(self, node: str) -> Layout:
        return node_class(self.kind, node).layout


@dataclass(frozen=True, slots=True)
class Watched:
    """The values around a node that is to become int8."""

    x: ir.Value
    y: ir.Value | None


@dataclass(frozen=True, slots=True)
class WatchfulPrecision:
    """Everything in fp32; remembers the values around each node that int8 would need ranges of.

    Attributes:
        kind: The graph's.
        watched: By node, as the graph is drawn.
    """

    kind: GraphKind
    watched: dict[str, Watched] = field(default_factory=dict)
    int8_max: int = INT8_MAX

    def layout(self, node: str) -> Layout:
        return "fp32"

    def watch(self, node: str, x: ir.Value, y: ir.Value | None = None) -> None:
        if node_class(self.kind, node).layout == "int8":
            self.watched[node] = Watched(x, y)
