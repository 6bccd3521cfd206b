"""Operators of ONNX Runtime, written out in those of the ONNX standard.

TensorRT parses no other. Attention takes the form that TensorRT fuses: two products around a
softmax, with both factors of the first scaled before it, so that half precision holds the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from export.graph import GraphBuilder, scalar

if TYPE_CHECKING:
    from export.diffusion.gpu.builder import GpuGraphBuilder

Inputs = list[ir.Value | None]
Expansion = Callable[[GraphBuilder, Inputs, str, dict[str, Any]], ir.Value]

_MASKED = -1e4  # far below every score, and within half precision


def needs_expansion(
    graph: GpuGraphBuilder, op_type: str, inputs: Inputs, *, standard_only: bool
) -> bool:
    """Whether a node has to be written out.

    Norms with a scale for each element of the batch are so for every GPU: the standard does not
    ask a runtime for them.
    """
    if op_type == "LayerNormalization":
        return not all(graph.is_stored(value) for value in inputs[1:])
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


def _attention(graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any) -> ir.Value:
    query, key, value, *others = inputs
    bias = others[2] if others else None
    count, root = attributes["num_heads"], attributes["scale"] ** 0.5
    sides = [(query, "query", [0, 2, 1, 3]), (key, "key", [0, 2, 3, 1])]
    if root != 1:
        factor = graph.constant(f"scale.{root:g}", scalar(root, np.float32))
        sides = [
            (graph.op("Mul", [x, factor], f"{name}.{kind}.scaled"), kind, perm)
            for x, kind, perm in sides
        ]
    queries, keys = (_by_head(graph, x, f"{name}.{kind}", count, perm) for x, kind, perm in sides)
    scores = graph.op("MatMul", [queries, keys], f"{name}.scores")  # [B, heads, S, T]
    if attributes.get("unidirectional"):
        bias = _causal_bias(graph, query, name)
    if bias is not None:
        scores = graph.op("Add", [scores, bias], f"{name}.biased")
    shares = graph.op("Softmax", [scores], f"{name}.shares", axis=-1)
    values = _by_head(graph, value, f"{name}.value", count, [0, 2, 1, 3])
    read = graph.op("MatMul", [shares, values], f"{name}.read")
    rows = graph.op("Transpose", [read], f"{name}.by_row", perm=[0, 2, 1, 3])
    return graph.op("Reshape", [rows, graph.constant("flat_heads.all", np.array([0, 0, -1]))], name)


def _by_head(
    graph: GraphBuilder, x: ir.Value | None, name: str, count: int, perm: list[int]
) -> ir.Value:
    """[B, S, C] -> [B, S, heads, C / heads], in the order of `perm`."""
    shape = graph.constant(f"heads.{count}", np.array([0, 0, count, -1]))
    split = graph.op("Reshape", [x, shape], f"{name}.split")
    return graph.op("Transpose", [split], f"{name}.heads", perm=perm)


def _causal_bias(graph: GraphBuilder, rows: ir.Value | None, name: str) -> ir.Value:
    """[T, T]: 0 up to the diagonal, and beyond it what no share is left of."""
    length = graph.op("Shape", [rows], f"{name}.length", start=1, end=2)
    square = graph.op("Concat", [length, length], f"{name}.square", axis=0)
    masked = graph.constant("masked", scalar(_MASKED, np.float32))
    full = graph.op("Expand", [masked, square], f"{name}.full")
    one = graph.constant("above_diagonal", scalar(1, np.int64))
    return graph.op("Trilu", [full, one], f"{name}.causal", upper=1)


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
        "LayerNormalization": _layer_norm,
        "MultiHeadAttention": _attention,
        "QuickGelu": _quick_gelu,
        "RotaryEmbedding": _rotary,
        "SimplifiedLayerNormalization": _rms_norm,
    }
)
