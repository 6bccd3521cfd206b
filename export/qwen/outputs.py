"""What a graph gives beside logits, so that few of them are read: candidates, or block maxima."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graph import GraphBuilder

MAXIMA_BLOCK = 128  # columns


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


def emit_block_maxima(graph: GraphBuilder, logits: ir.Value, vocab_size: int) -> None:
    """Make the largest of every `MAXIMA_BLOCK` columns an output too, where they divide evenly.

    The head has just written the logits then: the maxima of 8 rows of 151,936 took less than what
    could be measured of a head of 90 ms, and save the host 4.9 MB of reading.
    """
    if vocab_size % MAXIMA_BLOCK:
        return
    num_blocks = vocab_size // MAXIMA_BLOCK
    # 0 keeps the number of rows, which -1 could not tell where there are none.
    shape = graph.constant("maxima.shape", np.array([0, num_blocks, MAXIMA_BLOCK], np.int64))
    axis = graph.constant("maxima.axis", np.array([2], np.int64))
    blocks = graph.op("Reshape", [logits, shape], "maxima.blocks")
    maxima = graph.op("ReduceMax", [blocks, axis], "block_maxima", keepdims=0)
    graph.output(maxima, "block_maxima", "float32", ["R", num_blocks])
