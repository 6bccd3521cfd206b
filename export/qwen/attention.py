"""Attention on a slot cache by ONNX Runtime's GroupQueryAttention, for CPU and CUDA."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graph import CONTRIB, GraphBuilder
from export.linear import LinearEmitter, Projection
from export.qwen.config import DecoderConfig
from export.tensor_files import TensorFiles


@dataclass(frozen=True, slots=True)
class SequenceInputs:
    """The values that every layer's attention shares.

    Attributes:
        seqlens_k: int32 [n], the tokens of each row after this step, minus one.
        total_sequence_length: int32 [], the largest of them plus one.
        cos: [rows, head_dim / 2].
        sin: [rows, head_dim / 2].
        query_scale: [n, S, 1], where queries are scaled by their position.
    """

    seqlens_k: ir.Value
    total_sequence_length: ir.Value
    cos: ir.Value
    sin: ir.Value
    query_scale: ir.Value | None = None


class GroupQueryAttentionEmitter:
    """Emits one layer's attention: projections, norms of the heads, rotation, cache, output."""

    def __init__(
        self,
        config: DecoderConfig,
        graph: GraphBuilder,
        linear: LinearEmitter,
        tensors: TensorFiles,
        sequences: SequenceInputs,
    ) -> None:
        self._config = config
        self._graph = graph
        self._linear = linear
        self._tensors = tensors
        self._sequences = sequences
        self._cache_shape: list[int | str] = ["n", config.num_kv_heads, "rows", config.head_dim]

    def emit(self, x: ir.Value, layer: int) -> ir.Value:
        """What the heads of one layer read, [n, S, hidden] -> [n, S, num_heads * head_dim]."""
        config, graph, node = self._config, self._graph, f"layers.{layer}.attention"
        past = [
            graph.input(f"past_key_values.{layer}.{kind}", graph.dtype, self._cache_shape)
            for kind in ("key", "value")
        ]
        sequences = self._sequences
        heads, gate = self._queries_keys_values(x, layer, node)
        attended, *present = graph.ops(
            "GroupQueryAttention",
            [
                *heads,
                *past,
                sequences.seqlens_k,
                sequences.total_sequence_length,
                sequences.cos,
                sequences.sin,
            ],
            [f"{node}.heads", f"{node}.present_key", f"{node}.present_value"],
            domain=CONTRIB,
            num_heads=config.num_heads,
            kv_num_heads=config.num_kv_heads,
            scale=1 / math.sqrt(config.head_dim),
            do_rotary=1,
        )
        for kind, value in zip(("key", "value"), present, strict=True):
            graph.output(value, f"present.{layer}.{kind}", graph.dtype, self._cache_shape)
        if gate is None:
            return attended
        opened = graph.op("Sigmoid", [gate], f"{node}.gate_opened")
        return graph.op("Mul", [attended, opened], f"{node}.heads_gated")

    def _queries_keys_values(
        self, x: ir.Value, layer: int, node: str
    ) -> tuple[list[ir.Value | None], ir.Value | None]:
        """What the operator takes of them, and the gate of what the heads read."""
        config = self._config
        if config.packs_qkv:  # the operator splits a packed projection itself
            packed = self._linear.emit(x, self._projection(layer, f"{node}.qkv", "qkv"))
            return [packed, None, None], None
        q, k, v = (
            self._linear.emit(x, self._projection(layer, f"{node}.{kind}", kind)) for kind in "qkv"
        )
        gate = None
        if config.gates_heads:
            q, gate = self._split_gate(q, node)
        if config.qk_norm:
            q = self._normalize_heads(q, layer, f"{node}.q")
            k = self._normalize_heads(k, layer, f"{node}.k")
        scale = self._sequences.query_scale
        if scale is not None:
            q = self._graph.op("Mul", [q, scale], f"{node}.q_scaled")
        return [q, k, v], gate

    def _split_gate(self, x: ir.Value, node: str) -> tuple[ir.Value, ir.Value]:
        """Each head's query and gate stand side by side; [n, S, 2 * width] -> two [n, S, width]."""
        graph, head_dim = self._graph, self._config.head_dim
        by_head = graph.constant("by_gated_head", np.array([0, 0, -1, 2 * head_dim], np.int64))
        flat = graph.constant("flat_heads", np.array([0, 0, -1], np.int64))
        q, gate = graph.ops(
            "Split",
            [
                graph.op("Reshape", [x, by_head], f"{node}.q_gate_by_head"),
                graph.constant("head_and_gate", np.array([head_dim, head_dim], np.int64)),
            ],
            [f"{node}.q_by_head", f"{node}.gate_by_head"],
            axis=-1,
        )
        return (
            graph.op("Reshape", [q, flat], f"{node}.q_alone"),
            graph.op("Reshape", [gate, flat], f"{node}.gate"),
        )

    def _projection(self, layer: int, node: str, kinds: str) -> Projection:
        names = tuple(f"model.layers.{layer}.self_attn.{kind}_proj" for kind in kinds)
        return Projection(
            node,
            weights=tuple(f"{name}.weight" for name in names),
            biases=tuple(f"{name}.bias" for name in names) if self._config.qkv_bias else (),
        )

    def _normalize_heads(self, x: ir.Value, layer: int, node: str) -> ir.Value:
        """RMS-normalize each head by itself, [n, S, heads * head_dim] in and out."""
        graph, kind = self._graph, node[-1]
        by_head = graph.constant("by_head", np.array([0, 0, -1, self._config.head_dim], np.int64))
        flat = graph.constant("flat_heads", np.array([0, 0, -1], np.int64))
        weight = self._tensors.read(f"model.layers.{layer}.self_attn.{kind}_norm.weight")
        weight = weight + np.float32(self._config.norm_offset)
        normalized = graph.op(
            "SimplifiedLayerNormalization",
            [
                graph.op("Reshape", [x, by_head], f"{node}.by_head"),  # [n, S, heads, head_dim]
                graph.weight(f"{node}_norm.weight", weight),
            ],
            f"{node}_norm",
            axis=-1,
            epsilon=self._config.rms_norm_eps,
        )
        return graph.op("Reshape", [normalized, flat], f"{node}_norm.flat")
