"""Logarithmic scaling of queries behind the trained length, as the first Qwen has it.

https://kexue.fm/archives/8823 is where it comes from.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.graph import GraphBuilder, scalar


def logn_table(trained_length: int, num_positions: int) -> NDArray[np.float32]:
    """What the query of each position is multiplied by, [num_positions].

    The token at position i is the (i + 1)-th; up to the trained length it is 1.
    """
    counts = np.arange(1, num_positions + 1)
    return np.maximum(np.log(counts) / math.log(trained_length), 1).astype(np.float32)


def query_scale(
    graph: GraphBuilder, positions: ir.Value, trained_length: int, num_positions: int
) -> ir.Value:
    """What the query of each token of a run is multiplied by, [...] -> [..., 1]."""
    table = graph.weight("logn.table", logn_table(trained_length, num_positions))
    scales = graph.op("Gather", [table, positions], "logn.scales")
    last_axis = graph.constant("logn.last_axis", np.array([-1], np.int64))
    return graph.op("Unsqueeze", [scales, last_axis], "logn.scale")


def positions_of(graph: GraphBuilder, input_ids: ir.Value, seqlens_k: ir.Value) -> ir.Value:
    """The position of each token of a run, [n, S], where the graph is not told.

    Args:
        graph: Takes the nodes.
        input_ids: [n, S].
        seqlens_k: [n], the position of each row's last token.
    """
    length = graph.op(
        "Squeeze",
        [graph.op("Shape", [input_ids], "logn.shape", start=1, end=2)],
        "logn.length",
    )
    one = graph.constant("logn.one", scalar(1, np.int64))
    behind = graph.op(  # how far each token is behind the last one: 1 - S to 0
        "Range",
        [graph.op("Sub", [one, length], "logn.first"), one, one],
        "logn.behind",
    )
    last_axis = graph.constant("logn.last_axis", np.array([-1], np.int64))
    last = graph.op("Cast", [seqlens_k], "logn.last", to=ir.DataType.INT64.value)
    column = graph.op("Unsqueeze", [last, last_axis], "logn.last_column")  # [n, 1]
    return graph.op("Add", [column, behind], "logn.positions")
