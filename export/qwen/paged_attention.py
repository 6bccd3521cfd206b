"""Attention on a cache of blocks by ONNX Runtime's PagedAttention, for CUDA.

A run takes the tokens of several sequences end to end, whole prompts, pieces of them and single
tokens alike. The kernel normalizes and rotates the heads and writes to the cache by itself.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from export.graph import CONTRIB, GraphBuilder
from export.linear import LinearEmitter
from export.qwen.config import DecoderConfig
from export.qwen.logn import query_scale
from export.qwen.projections import HeadProjections
from export.qwen.rope import rope_tables
from export.tensor_files import TensorFiles


class PagedAttentionEmitter:
    """Emits one layer's attention over the blocks that the block table names.

    Args:
        config: The decoder's shape.
        graph: Takes the nodes.
        linear: Emits the projections.
        tensors: The checkpoint's tensors.
        num_rows: Rows of the rotation tables.
    """

    def __init__(
        self,
        config: DecoderConfig,
        graph: GraphBuilder,
        linear: LinearEmitter,
        tensors: TensorFiles,
        num_rows: int,
    ) -> None:
        self._config = config
        self._graph = graph
        self.input_ids = graph.input("input_ids", "int64", ["T"])
        scale = None
        if config.logn_length is not None:
            positions = graph.input("position_ids", "int64", ["T"])
            scale = query_scale(graph, positions, config.logn_length, num_rows)
        self._projections = HeadProjections(config, graph, linear, tensors, scale)
        self._sequences = [
            graph.input("cumulative_sequence_lengths", "int32", ["B + 1"]),
            graph.input("past_sequence_lengths", "int32", ["B"]),
            graph.input("block_table", "int32", ["B", "M"]),
        ]
        self._slot_mapping = graph.input("slot_mapping", "int32", ["T"])
        self._metadata = graph.input("attention_metadata", "int32", [2])
        cos, sin = rope_tables(config.rope, config.head_dim, num_rows)
        self._tables = [graph.weight("rope.cos", cos), graph.weight("rope.sin", sin)]

    def emit(self, x: ir.Value, layer: int) -> ir.Value:
        """What the heads of one layer read, [T, hidden] -> [T, num_heads * head_dim]."""
        config, graph, node = self._config, self._graph, f"layers.{layer}.attention"
        shape: list[int | str] = ["blocks", "block_size", config.num_kv_heads, config.head_dim]
        past = [
            graph.input(f"past_key_values.{layer}.{kind}", graph.dtype, shape)
            for kind in ("key", "value")
        ]
        norms: list[ir.Value | None] = [None, None]
        if config.qk_norm:
            norms = [*self._projections.norm_weights(layer)]
        attended, *present = graph.ops(
            "PagedAttention",
            [
                *self._projections.emit(x, layer),
                *past,
                *self._sequences,
                *self._tables,
                self._slot_mapping,
                None,
                *norms,
                None,
                None,
                self._metadata,
            ],
            [f"{node}.heads", f"{node}.key_cache", f"{node}.value_cache"],
            domain=CONTRIB,
            num_heads=config.num_heads,
            kv_num_heads=config.num_kv_heads,
            scale=1 / math.sqrt(config.head_dim),
            do_rotary=1,
            qk_norm_epsilon=config.rms_norm_eps,
        )
        for kind, value in zip(("key", "value"), present, strict=True):
            graph.output(value, f"present.{layer}.{kind}", graph.dtype, shape)
        return attended
