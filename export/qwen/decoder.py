"""The decoder's graph: tokens and caches in, logits of the chosen rows out.

Inputs: `input_ids` int64 [n, S], `seqlens_k` int32 [n], `total_sequence_length` int32 [],
`logit_indices` int64 [R] (rows of the flattened [n * S]), and for each layer
`past_key_values.{layer}.key` and `.value` float32 [n, kv_heads, rows, head_dim].
Outputs: `logits` float32 [R, vocab_size] and `present.{layer}.key` and `.value`, which have to be
bound to the memory of the pasts.

That is the graph for a CPU. The other targets (`export.qwen.target`) differ in what their attention
is told of the sequences, in the type of the numbers, and in two more outputs, the likeliest tokens
of each row: `candidate_ids` int64 and `candidate_logits` float32 [R, k].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnx_ir as ir

from engines.manifest import StateDtype, StateSpec
from export.graph import GraphBuilder
from export.linear import LinearEmitter, Projection
from export.operators import Operators, OrtOperators, StandardOperators
from export.precision import NodePrecision
from export.quantize import quantize_rows
from export.qwen.attention import GroupQueryAttentionEmitter, SequenceInputs
from export.qwen.config import DecoderConfig
from export.qwen.delta_net import DeltaNetEmitter, delta_net_states
from export.qwen.experts import ExpertsEmitter
from export.qwen.logn import positions_of, query_scale
from export.qwen.mlp import MlpEmitter, mlp_nodes
from export.qwen.outputs import emit_block_maxima, emit_candidates
from export.qwen.paged_attention import PagedAttentionEmitter
from export.qwen.rope import rope_tables
from export.qwen.standard_attention import StandardAttentionEmitter
from export.qwen.target import GraphTarget, num_candidates
from export.qwen.tensors import EMBEDDING, FINAL_NORM, HEAD
from export.tensor_files import TensorFiles


def node_names(config: DecoderConfig) -> list[str]:
    """The nodes whose precision can be chosen."""
    layers = [
        f"layers.{layer}.{name}"
        for layer in range(config.num_layers)
        for name in [
            *(f"attention.{kind}" for kind in [*_projections_of(config, layer), "o"]),
            *mlp_nodes(config, layer),
        ]
    ]
    return ["embedding", *layers, "head"]


def _projections_of(config: DecoderConfig, layer: int) -> list[str]:
    """The projections into a layer's heads."""
    delta_net = config.delta_net_of(layer)
    if delta_net is not None:
        return ["qkvg"] if delta_net.packs_projections else ["qkv", "gate"]
    return ["qkv"] if config.packs_qkv else ["q", "k", "v"]


def state_specs(config: DecoderConfig, dtype: StateDtype = "float32") -> tuple[StateSpec, ...]:
    """What the graph keeps of each layer: keys and values, or the states of a Gated DeltaNet."""
    states: list[StateSpec] = []
    for layer in range(config.num_layers):
        delta_net = config.delta_net_of(layer)
        if delta_net is not None:
            states += delta_net_states(delta_net, layer)
            continue
        states += [
            StateSpec(
                input=f"past_key_values.{layer}.{kind}",
                output=f"present.{layer}.{kind}",
                heads=config.num_kv_heads,
                width=config.head_dim,
                dtype=dtype,
            )
            for kind in ("key", "value")
        ]
    return tuple(states)


class AttentionEmitter(Protocol):
    """What the attention of every target is asked for."""

    def emit(self, x: ir.Value, layer: int) -> ir.Value:
        """What the heads of one layer read, [..., hidden] -> [..., num_heads * head_dim]."""
        ...


class DecoderEmitter:
    """Emits a whole decoder into a graph, layer by layer.

    Args:
        config: The decoder's shape.
        tensors: Its weights.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        int4_block_size: See `LinearEmitter`.
        num_rows: Rows of the rotation tables, which bound those of a slot of the caches.
        target: What the graph is drawn for.
        num_tokens: Columns of the logits that are tokens; None for all.
        head_rows: Tokens that get logits, for a head of these alone; () leaves out the head, so
            that `hidden_states` [R, hidden] are the output; None is the whole head.
    """

    def __init__(
        self,
        config: DecoderConfig,
        tensors: TensorFiles,
        graph: GraphBuilder,
        precision: NodePrecision,
        int4_block_size: int | None,
        num_rows: int,
        target: GraphTarget = GraphTarget(),  # noqa: B008  (frozen)
        num_tokens: int | None = None,
        head_rows: tuple[int, ...] | None = None,
    ) -> None:
        self._config = config
        self._tensors = tensors
        self._graph = graph
        self._precision = precision
        self._operators: Operators = (
            StandardOperators(graph) if target.is_standard else OrtOperators(graph)
        )
        self._linear = LinearEmitter(graph, tensors, precision, int4_block_size, self._operators)
        self._experts = ExpertsEmitter(
            config.experts,
            graph,
            tensors,
            precision,
            int4_block_size,
            on_gpu=target.target == "cuda",
        )
        self._num_rows = num_rows
        self._target = target
        self._num_tokens = num_tokens or config.vocab_size
        self._head_rows = head_rows

    def emit(self, advance: Callable[[str], None]) -> None:
        """Emit everything; `advance` is told each part that is done."""
        graph, config = self._graph, self._config
        input_ids, attention = self._attention()
        logit_indices = graph.input("logit_indices", "int64", ["R"])
        emitters = [self._delta_net(layer) or attention for layer in range(config.num_layers)]
        mlp = MlpEmitter(config, graph, self._linear, self._experts, self._operators)
        residual: ir.Value | None = None
        self._linear.begin_rows()
        hidden, embedding_table = self._embed(input_ids)
        advance("embedding")
        for layer in range(config.num_layers):
            name = f"layers.{layer}"
            normed, residual = self._norm(hidden, residual, layer, "input_layernorm")
            heads = emitters[layer].emit(normed, layer)
            if layer == config.num_layers - 1:
                # Behind the last attention no row sees another: only those that get logits go on.
                heads = self._take_rows(heads, logit_indices, f"{name}.heads_taken")  # [R, ...]
                residual = self._take_rows(residual, logit_indices, f"{name}.residual_taken")
                self._linear.begin_rows()
            attended = self._linear.emit(heads, self._output_projection(layer))
            normed, residual = self._norm(attended, residual, layer, "post_attention_layernorm")
            hidden = mlp.emit(normed, layer)
            advance(f"layer {layer + 1} of {config.num_layers}")
        normed, _ = self._norm(hidden, residual, None, FINAL_NORM)  # [R, hidden]
        self._emit_output(normed, embedding_table)
        advance("head")

    def _attention(self) -> tuple[ir.Value, AttentionEmitter]:
        """The input of tokens, and what emits the attention of each layer."""
        config, graph, target = self._config, self._graph, self._target
        if target.is_standard:
            standard = StandardAttentionEmitter(
                config, graph, self._linear, self._tensors, self._operators, self._num_rows
            )
            return standard.input_ids, standard
        if target.cache == "blocks":
            paged = PagedAttentionEmitter(
                config, graph, self._linear, self._tensors, self._num_rows
            )
            return paged.input_ids, paged
        input_ids = graph.input("input_ids", "int64", ["n", "S"])
        sequences = self._sequence_inputs(input_ids)
        return input_ids, GroupQueryAttentionEmitter(
            config, graph, self._linear, self._tensors, sequences
        )

    def _delta_net(self, layer: int) -> DeltaNetEmitter | None:
        config = self._config
        delta_net = config.delta_net_of(layer)
        if delta_net is None:
            return None
        return DeltaNetEmitter(
            delta_net, self._graph, self._linear, self._tensors, config.rms_norm_eps
        )

    def _sequence_inputs(self, input_ids: ir.Value) -> SequenceInputs:
        graph, logn_length = self._graph, self._config.logn_length
        cos, sin = rope_tables(self._config.rope, self._config.rotary_width, self._num_rows)
        seqlens_k = graph.input("seqlens_k", "int32", ["n"])
        scale = None
        if logn_length is not None:
            if self._target.reads_positions(self._config):
                positions = graph.input("position_ids", "int64", ["n", "S"])
            else:
                positions = positions_of(graph, input_ids, seqlens_k)
            scale = query_scale(graph, positions, logn_length, self._num_rows)
        return SequenceInputs(
            seqlens_k,
            graph.input("total_sequence_length", "int32", []),
            graph.weight("rope.cos", cos),
            graph.weight("rope.sin", sin),
            scale,
        )

    def _embed(self, input_ids: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """[n, S] -> [n, S, hidden], and the table itself where it is in fp32."""
        graph = self._graph
        if self._precision.layout("embedding") != "int8":
            table = graph.weight("embedding.weight", self._tensors.read(EMBEDDING))
            return graph.op("Gather", [table, input_ids], "embedding"), table
        weight = np.empty((self._config.vocab_size, self._config.hidden_size), np.int8)
        scale = np.empty((self._config.vocab_size, 1), np.float32)
        for start, block in self._tensors.row_blocks(EMBEDDING):
            rows = slice(start, start + len(block))
            weight[rows], scale[rows, 0] = quantize_rows(block)
        quantized = graph.op(
            "Gather", [graph.weight("embedding.weight", weight), input_ids], "embedding.quantized"
        )
        row_scale = graph.op(
            "Gather", [graph.weight("embedding.scale", scale), input_ids], "embedding.row_scale"
        )
        widened = graph.op("Cast", [quantized], "embedding.widened", to=ir.DataType.FLOAT.value)
        return graph.op("Mul", [widened, row_scale], "embedding"), None

    def _norm(
        self, x: ir.Value, residual: ir.Value | None, layer: int | None, name: str
    ) -> tuple[ir.Value, ir.Value]:
        """Add the residual and normalize the sum: the norm, and the sum as the next residual."""
        graph, epsilon = self._graph, self._config.rms_norm_eps
        node = "final_norm" if layer is None else f"layers.{layer}.{name}"
        tensor = name if layer is None else f"model.layers.{layer}.{name}.weight"
        weight = graph.weight(
            f"{node}.weight", self._tensors.read(tensor) + np.float32(self._config.norm_offset)
        )
        if residual is None:
            return self._operators.normalize(x, weight, node, epsilon), x
        return self._operators.add_and_normalize(x, residual, weight, node, epsilon)

    def _take_rows(self, x: ir.Value, indices: ir.Value, name: str) -> ir.Value:
        """[n, S, width] or [T, width] -> [R, width]."""
        flat = self._graph.op("Flatten", [x], f"{name}.flat", axis=-1)  # [n * S, width]
        return self._graph.op("Gather", [flat, indices], name, axis=0)

    def _output_projection(self, layer: int) -> Projection:
        if self._config.delta_net_of(layer) is not None:
            name = f"model.layers.{layer}.linear_attn.out_proj"
            return Projection(f"layers.{layer}.attention.o", (f"{name}.weight",))
        name = f"model.layers.{layer}.self_attn.o_proj"
        biases = (f"{name}.bias",) if self._config.output_bias else ()
        return Projection(f"layers.{layer}.attention.o", (f"{name}.weight",), biases)

    def _is_dense(self, node: str) -> bool:
        return self._precision.layout(node) not in ("int8", "int4")

    def _emit_output(self, normed: ir.Value, embedding_table: ir.Value | None) -> None:
        graph, config, rows = self._graph, self._config, self._head_rows
        if rows is None:
            logits = self._head(normed, embedding_table)  # [R, vocab_size]
            if self._target.gives_candidates:
                size = num_candidates(self._target, self._num_tokens)
                emit_candidates(graph, logits, self._num_tokens, size)
            else:
                graph.output(logits, "logits", "float32", ["R", config.vocab_size])
                emit_block_maxima(graph, logits, config.vocab_size)
        elif rows:
            tensor = EMBEDDING if config.tie_word_embeddings else HEAD
            weight = np.concatenate([self._tensors.read_rows(tensor, i, i + 1) for i in rows])
            logits = self._linear.emit_dense(normed, graph.weight("head.weight", weight), "head")
            graph.output(logits, "logits", "float32", ["R", len(rows)])
        else:
            graph.output(normed, "hidden_states", "float32", ["R", config.hidden_size])

    def _head(self, x: ir.Value, embedding_table: ir.Value | None) -> ir.Value:
        if not self._config.tie_word_embeddings:
            return self._linear.emit(x, Projection("head", (HEAD,)))
        if embedding_table is not None and self._is_dense("head"):
            return self._linear.emit_dense(x, embedding_table, "head")
        return self._linear.emit(x, Projection("head", (EMBEDDING,)))
