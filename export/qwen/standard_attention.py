"""Attention on a slot cache by operators of the ONNX standard, which TensorRT reads.

Each row scatters its keys and values into its slot, in place, and attends under an explicit mask.
Only the first `len(cache_positions)` rows of the slots are looked at, so that a run costs what its
longest sequence asks for and not what the slots could hold.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from export.graph import GraphBuilder
from export.linear import LinearEmitter
from export.operators import Operators
from export.qwen.config import DecoderConfig
from export.qwen.logn import query_scale
from export.qwen.projections import HeadProjections
from export.qwen.rope import rope_tables
from export.tensor_files import TensorFiles


class StandardAttentionEmitter:
    """Emits one layer's attention.

    Args:
        config: The decoder's shape.
        graph: Takes the nodes.
        linear: Emits the projections.
        tensors: The checkpoint's tensors.
        operators: Emits the norms of heads.
        num_rows: Rows of a slot, which a plan has fixed.
    """

    def __init__(
        self,
        config: DecoderConfig,
        graph: GraphBuilder,
        linear: LinearEmitter,
        tensors: TensorFiles,
        operators: Operators,
        num_rows: int,
    ) -> None:
        self._config = config
        self._graph = graph
        self._operators = operators
        self.input_ids = graph.input("input_ids", "int64", ["n", "S"])
        self._position_ids = graph.input("position_ids", "int64", ["n", "S"])
        scale = None
        if config.logn_length is not None:
            scale = query_scale(graph, self._position_ids, config.logn_length, num_rows)
        self._projections = HeadProjections(config, graph, linear, tensors, scale)
        self._write_indices = graph.input("write_indices", "int64", ["n"])
        cache_positions = graph.input("cache_positions", "int64", ["visible"])
        self._num_visible = graph.op("Shape", [cache_positions], "num_visible")
        self._mask = self._emit_mask(cache_positions)
        self._shape: list[int | str] = ["n", config.num_kv_heads, num_rows, config.head_dim]
        cos, sin = rope_tables(config.rope, config.head_dim, num_rows)
        self._tables = [graph.weight("rope.cos", cos), graph.weight("rope.sin", sin)]

    def emit(self, x: ir.Value, layer: int) -> ir.Value:
        """What the heads of one layer read, [n, S, hidden] -> [n, S, num_heads * head_dim]."""
        config, graph, node = self._config, self._graph, f"layers.{layer}.attention"
        query, key, value = self._projections.emit_apart(x, layer)
        norms: tuple[ir.Value | None, ir.Value | None] = (None, None)
        if config.qk_norm:
            norms = self._projections.norm_weights(layer)
        query = self._rotate(self._heads(query, f"{node}.q", norms[0]), f"{node}.q")
        key = self._rotate(self._heads(key, f"{node}.k", norms[1]), f"{node}.k")
        keys = self._update(key, layer, "key")
        values = self._update(self._heads(value, f"{node}.v"), layer, "value")
        attended = graph.op(
            "Attention",
            [query, keys, values, self._mask],
            f"{node}.attended",  # [n, heads, S, head_dim]
            scale=1 / math.sqrt(config.head_dim),
        )
        rows = graph.op("Transpose", [attended], f"{node}.rows", perm=[0, 2, 1, 3])
        flat = graph.constant("flat_heads", np.array([0, 0, -1], np.int64))
        return graph.op("Reshape", [rows, flat], f"{node}.heads")

    def _emit_mask(self, cache_positions: ir.Value) -> ir.Value:
        """Whether a token may see a row of its slot: [n, 1, S, visible]."""
        graph = self._graph
        columns = graph.constant("mask.axes", np.array([1, 3], np.int64))
        rows = graph.op("Unsqueeze", [self._position_ids, columns], "mask.rows")  # [n, 1, S, 1]
        return graph.op("LessOrEqual", [cache_positions, rows], "mask")

    def _heads(self, x: ir.Value, node: str, norm: ir.Value | None = None) -> ir.Value:
        """[n, S, heads * head_dim] -> [n, heads, S, head_dim], normalized where there is a norm."""
        graph = self._graph
        shape = graph.constant("by_head", np.array([0, 0, -1, self._config.head_dim], np.int64))
        heads = graph.op("Reshape", [x, shape], f"{node}.by_head")
        if norm is not None:
            heads = self._operators.normalize(
                heads, norm, f"{node}_norm", self._config.rms_norm_eps
            )
        return graph.op("Transpose", [heads], f"{node}.heads", perm=[0, 2, 1, 3])

    def _rotate(self, x: ir.Value, node: str) -> ir.Value:
        return self._graph.op(
            "RotaryEmbedding", [x, *self._tables, self._position_ids], f"{node}.rotated"
        )

    def _update(self, x: ir.Value, layer: int, kind: str) -> ir.Value:
        """Write behind what the slots hold; the rows that are looked at, [n, heads, visible, d]."""
        graph, name = self._graph, f"layers.{layer}.attention.{kind}"
        past = graph.input(f"past_key_values.{layer}.{kind}", graph.dtype, self._shape)
        present = graph.op(
            "TensorScatter", [past, x, self._write_indices], f"{name}.present", axis=2
        )
        graph.output(present, f"present.{layer}.{kind}", graph.dtype, self._shape)
        start = graph.constant("visible.start", np.array([0], np.int64))
        axis = graph.constant("visible.axis", np.array([2], np.int64))
        return graph.op("Slice", [present, start, self._num_visible, axis], f"{name}.visible")
