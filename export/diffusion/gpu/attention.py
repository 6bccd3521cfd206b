"""Attention in operators of the ONNX standard, in the form that TensorRT fuses.

Two products around a softmax, with both factors of the first scaled before it, so that half
precision holds the scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from export.graph import GraphBuilder, scalar

Inputs = list[ir.Value | None]

_MASKED = -1e4  # far below every score, and within half precision


def attention(graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any) -> ir.Value:
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


def grouped_query_attention(
    graph: GraphBuilder, inputs: Inputs, name: str, attributes: Any
) -> ir.Value:
    """Of whole texts, from their first token on; some query heads share a key head.

    The halves of a head are turned together, by the rows of the tables that stand for its place.
    """
    query, key, value, *past = inputs[:5]
    assert past == [None, None], "what stands before the text is not read"
    assert attributes["do_rotary"] == 1
    count, groups = attributes["num_heads"], attributes["kv_num_heads"]
    root = attributes["scale"] ** 0.5
    factor = graph.constant(f"scale.{root:g}", scalar(root, np.float32))
    length = graph.op("Shape", [query], f"{name}.num_places", start=1, end=2)
    waves = [
        _first_rows(graph, table, length, f"{name}.rotated.{index}")
        for index, table in enumerate(inputs[7:9])
    ]

    def side(x: ir.Value | None, kind: str, per_group: int, perm: list[int]) -> ir.Value:
        """[B, S, C] -> heads by group, in the order of `perm`."""
        shape = graph.constant(f"groups.{per_group}", np.array([0, 0, groups, per_group, -1]))
        split = graph.op("Reshape", [x, shape], f"{name}.{kind}.split")
        return graph.op("Transpose", [split], f"{name}.{kind}.heads", perm=perm)

    def turned(x: ir.Value | None, kind: str, num_heads: int) -> ir.Value:
        rows = _rotate_halves(graph, x, waves, num_heads, f"{name}.{kind}.rotated")
        return graph.op("Mul", [rows, factor], f"{name}.{kind}.scaled")

    queries = side(turned(query, "query", count), "query", count // groups, [0, 2, 3, 1, 4])
    keys = side(turned(key, "key", groups), "key", 1, [0, 2, 3, 4, 1])
    scores = graph.op("MatMul", [queries, keys], f"{name}.scores")  # [B, groups, heads, S, S]
    biased = graph.op("Add", [scores, _causal_bias(graph, query, name)], f"{name}.biased")
    shares = graph.op("Softmax", [biased], f"{name}.shares", axis=-1)
    read = graph.op("MatMul", [shares, side(value, "value", 1, [0, 2, 3, 1, 4])], f"{name}.read")
    rows = graph.op("Transpose", [read], f"{name}.by_row", perm=[0, 3, 1, 2, 4])
    return graph.op("Reshape", [rows, graph.constant("flat_heads.all", np.array([0, 0, -1]))], name)


def _first_rows(
    graph: GraphBuilder, table: ir.Value | None, length: ir.Value, name: str
) -> ir.Value:
    """Of a table [rows, D / 2], those of the text's places, [S, 1, D / 2]."""
    first, axis = (graph.constant(f"places.{n}", np.array([n])) for n in (0, 1))
    rows = graph.op("Slice", [table, first, length, first], f"{name}.rows")
    return graph.op("Unsqueeze", [rows, axis], f"{name}.wave")


def _rotate_halves(
    graph: GraphBuilder, x: ir.Value | None, waves: list[ir.Value], count: int, name: str
) -> ir.Value:
    """(a, b) -> (a cos - b sin, b cos + a sin), where a and b are halves of a head."""
    cos, sin = waves
    by_head = graph.constant(f"heads.{count}", np.array([0, 0, count, -1]))
    heads = graph.op("Reshape", [x, by_head], f"{name}.by_head")
    a, b = graph.ops("Split", [heads], [f"{name}.a", f"{name}.b"], axis=-1, num_outputs=2)

    def product(half: ir.Value, wave: ir.Value, kind: str) -> ir.Value:
        return graph.op("Mul", [half, wave], f"{name}.{kind}")

    first = graph.op("Sub", [product(a, cos, "ac"), product(b, sin, "bs")], f"{name}.first")
    second = graph.op("Add", [product(b, cos, "bc"), product(a, sin, "as")], f"{name}.second")
    turned = graph.op("Concat", [first, second], f"{name}.turned", axis=-1)
    flat = graph.constant("flat_heads.all", np.array([0, 0, -1]))
    return graph.op("Reshape", [turned, flat], f"{name}.flat")


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
