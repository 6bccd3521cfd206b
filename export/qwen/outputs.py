"""The outputs of a graph for a GPU: logits that stay there, and the few that are fetched."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graph import GraphBuilder


def emit_candidates(graph: GraphBuilder, logits: ir.Value, num_tokens: int, size: int) -> None:
    """Make the logits [R, vocab_size] an output, and the `size` largest of them with their ids.

    Columns behind `num_tokens` pad the head and are cut off.
    """
    start = graph.constant("tokens.start", np.array([0], np.int64))
    end = graph.constant("tokens.end", np.array([num_tokens], np.int64))
    axis = graph.constant("tokens.axis", np.array([1], np.int64))
    tokens = graph.op("Slice", [logits, start, end, axis], "tokens")
    wide = graph.op("Cast", [tokens], "wide_logits", to=ir.DataType.FLOAT.value)
    count = graph.constant("num_candidates", np.array([size], np.int64))
    values, token_ids = graph.ops(
        "TopK", [wide, count], ["largest_logits", "largest_ids"], axis=1, largest=1, sorted=1
    )
    graph.output(wide, "logits", "float32", ["R", num_tokens])
    graph.output(values, "candidate_logits", "float32", ["R", size])
    graph.output(token_ids, "candidate_ids", "int64", ["R", size])
