"""Operators of ONNX Runtime, written out in those of the ONNX standard.

TensorRT parses no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from export.diffusion.gpu.attention import attention, grouped_query_attention
from export.graph import GraphBuilder, scalar

if TYPE_CHECKING:
    from export.diffusion.gpu.builder import GpuGraphBuilder

Inputs = list[ir.Value | None]
Expansion = Callable[[GraphBuilder, Inputs, str, dict[str, Any]], ir.Value]


def needs_expansion(
    graph: GpuGraphBuilder, op_type: str, inputs: Inputs, *, standard_only: bool
) -> bool:
    """Whether a node has to be written out.

    Norms with a scale for each element of the batch are so for every GPU: the standard does not
    ask a runtime for them. So is attention with shared keys, which the provider for CUDA has in
    half precision alone; it reads prompts, once for a picture.
    """
    if op_type == "LayerNormalization":
        return not all(graph.is_stored(value) for value in inputs[1:])
    if op_type == "GroupQueryAttention":
        return True
    return standard_only and op_type in EXPANSIONS


def _quick_gelu(graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any) -> ir.Value:
    (x,) = inputs
    alpha, scaled = attributes["alpha"], x
    if alpha != 1:
        factor = graph.constant(f"quick_gelu.{alpha:g}", scalar(alpha, np.float32))
        scaled = graph.op("Mul", [x, factor], f"{name}.scaled")
    return graph.op("Mul", [x, graph.op("Sigmoid", [scaled], f"{name}.sigmoid")], name)


def _fused_matmul(graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any) -> ir.Value:
    assert attributes == {"transB": 1}, attributes
    x, weight = inputs
    assert weight is not None
    turned = graph.op("Transpose", [weight], f"{name}.turned", perm=[1, 0])
    return graph.op("MatMul", [x, turned], name)


def _rms_norm(graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any) -> ir.Value:
    x, weight = inputs
    unit = _unit(graph, x, name, attributes["epsilon"])
    return graph.op("Mul", [unit, weight], name)


def _layer_norm(graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any) -> ir.Value:
    x, factor, shift = inputs
    axis = graph.constant("last_axis", np.array([-1]))
    mean = graph.op("ReduceMean", [x, axis], f"{name}.mean", keepdims=1)
    centred = graph.op("Sub", [x, mean], f"{name}.centred")
    unit = _unit(graph, centred, name, attributes["epsilon"])
    return graph.op("Add", [graph.op("Mul", [unit, factor], f"{name}.scaled"), shift], name)


def _unit(graph: GraphBuilder, x: ir.Value | None, name: str, epsilon: float) -> ir.Value:
    """x by the root of the mean of its squares, along the last axis."""
    axis = graph.constant("last_axis", np.array([-1]))
    smallest = graph.constant(f"epsilon.{epsilon:g}", scalar(epsilon, np.float32))
    squares = graph.op("Mul", [x, x], f"{name}.squares")
    mean = graph.op("ReduceMean", [squares, axis], f"{name}.mean_square", keepdims=1)
    size = graph.op("Add", [mean, smallest], f"{name}.bounded")
    return graph.op("Div", [x, graph.op("Sqrt", [size], f"{name}.size")], f"{name}.unit")


def _rotary(graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any) -> ir.Value:
    """A pair is two neighbours: (a, b) -> (a cos - b sin, b cos + a sin)."""
    assert attributes["interleaved"] == 1, "the other order of pairs is not used"
    x, _, cos, sin = inputs
    count = attributes["num_heads"]
    pairs_of = graph.constant(f"pairs.{count}", np.array([0, 0, count, -1, 2]))
    pairs = graph.op("Reshape", [x, pairs_of], f"{name}.pairs")  # [B, S, heads, D / 2, 2]
    a, b = graph.ops("Split", [pairs], [f"{name}.a", f"{name}.b"], axis=-1, num_outputs=2)
    axes = graph.constant("pairs.axes", np.array([1, 3]))
    cos, sin = (
        graph.op("Unsqueeze", [wave, axes], f"{name}.{kind}")  # [S, 1, D / 2, 1]
        for wave, kind in ((cos, "cos"), (sin, "sin"))
    )

    def product(value: ir.Value, wave: ir.Value | None, kind: str) -> ir.Value:
        return graph.op("Mul", [value, wave], f"{name}.{kind}")

    first = graph.op("Sub", [product(a, cos, "ac"), product(b, sin, "bs")], f"{name}.first")
    second = graph.op("Add", [product(b, cos, "bc"), product(a, sin, "as")], f"{name}.second")
    turned = graph.op("Concat", [first, second], f"{name}.turned", axis=-1)
    flat = graph.constant(f"pairs.flat.{count}", np.array([0, 0, -1]))
    return graph.op("Reshape", [turned, flat], name)


EXPANSIONS: Mapping[str, Expansion] = MappingProxyType(
    {
        "FusedMatMul": _fused_matmul,
        "GroupQueryAttention": grouped_query_attention,
        "LayerNormalization": _layer_norm,
        "MultiHeadAttention": attention,
        "QuickGelu": _quick_gelu,
        "RotaryEmbedding": _rotary,
        "SimplifiedLayerNormalization": _rms_norm,
    }
)
