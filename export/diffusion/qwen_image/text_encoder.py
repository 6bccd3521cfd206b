"""The text encoder's graph: the language half of a Qwen2.5-VL, without a cache and without a head.

Input: `input_ids` int64 [B, T], the template's ids around those of a prompt; texts of one length,
or padded at their ends, since no token sees those behind it.
Output: `hidden_states` float32 [B, T - 34, hidden_size], the last layer's rows, normalized, behind
those of the template.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import Advance, LayerEmitter
from export.diffusion.qwen_image.rms_norm import rms_norm
from export.diffusion.qwen_image.template import NUM_DROPPED_ROWS
from export.diffusion.qwen_image.text_config import num_positions
from export.graph import CONTRIB, GraphBuilder, scalar
from export.precision import LayoutChooser
from export.qwen.config import DecoderConfig
from export.qwen.rope import rope_tables
from export.qwen.tensors import EMBEDDING
from export.tensor_files import TensorFiles


def num_parts(config: DecoderConfig) -> int:
    """How often the emission advances."""
    return config.num_layers + 1


def emit_qwen_text_encoder(
    config: DecoderConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit everything; `advance` is told each part that is done.

    Args:
        config: The decoder's shape.
        tensors: What `open_text_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.
    """
    QwenTextEncoderEmitter(config, graph, LayerEmitter(graph, tensors, precision)).emit(advance)


class QwenTextEncoderEmitter:
    """Emits the decoder into a graph, layer by layer."""

    def __init__(self, config: DecoderConfig, graph: GraphBuilder, layers: LayerEmitter) -> None:
        self._config = config
        self._graph = graph
        self._layers = layers
        cos, sin = rope_tables(config.rope, config.head_dim, num_positions(config))
        self._rope = graph.weight("rope.cos", cos), graph.weight("rope.sin", sin)

    def emit(self, advance: Advance) -> None:
        graph, config, layers = self._graph, self._config, self._layers
        input_ids = graph.input("input_ids", "int64", ["batch", "num_ids"])
        rows = graph.op("Gather", [layers.table(EMBEDDING), input_ids], "embedding")
        lengths = self._lengths(input_ids)
        advance("embedding")
        for layer in range(config.num_layers):
            name = f"model.layers.{layer}"
            rows = self._emit_layer(rows, name, lengths)
            advance(name)
        normed = rms_norm(layers, rows, "model.norm", config.rms_norm_eps)
        first, end, axis = (
            graph.constant(name, np.array([index]))
            for name, index in (
                ("first_row", NUM_DROPPED_ROWS),
                ("end", np.iinfo(np.int64).max),
                ("token_axis", 1),
            )
        )
        kept = graph.op("Slice", [normed, first, end, axis], "kept")
        kept_rows = f"num_ids - {NUM_DROPPED_ROWS}"
        graph.output(kept, "hidden_states", "float32", ["batch", kept_rows, config.hidden_size])

    def _lengths(self, input_ids: ir.Value) -> tuple[ir.Value, ir.Value]:
        """What the attention is told of a batch: int32 [B] of T - 1, and int32 [] of T."""
        graph = self._graph
        batch = graph.op("Shape", [input_ids], "batch", start=0, end=1)
        num_ids = graph.op("Shape", [input_ids], "num_ids", start=1, end=2)
        narrow = graph.op("Cast", [num_ids], "num_ids.int32", to=ir.DataType.INT32.value)
        one = graph.constant("one", scalar(1, np.int32))
        last = graph.op("Sub", [narrow, one], "last_position")
        return (
            graph.op("Expand", [last, batch], "seqlens_k"),
            graph.op("Squeeze", [narrow], "total_sequence_length"),
        )

    def _emit_layer(
        self, rows: ir.Value, name: str, lengths: tuple[ir.Value, ir.Value]
    ) -> ir.Value:
        graph, config, layers = self._graph, self._config, self._layers
        epsilon = config.rms_norm_eps
        normed = rms_norm(layers, rows, f"{name}.input_layernorm", epsilon)
        queries_keys_values = [
            layers.linear(normed, f"{name}.self_attn.{kind}_proj", bias=config.qkv_bias)
            for kind in "qkv"
        ]
        heads, *_ = graph.ops(
            "GroupQueryAttention",
            [*queries_keys_values, None, None, *lengths, *self._rope],
            [f"{name}.self_attn.{output}" for output in ("heads", "keys", "values")],
            domain=CONTRIB,
            num_heads=config.num_heads,
            kv_num_heads=config.num_kv_heads,
            scale=1 / math.sqrt(config.head_dim),
            do_rotary=1,
        )
        attended = layers.linear(heads, f"{name}.self_attn.o_proj", bias=config.output_bias)
        rows = layers.add(rows, attended, f"{name}.self_attn.sum")
        normed = rms_norm(layers, rows, f"{name}.post_attention_layernorm", epsilon)
        gate, up = (
            layers.linear(normed, f"{name}.mlp.{kind}_proj", bias=False) for kind in ("gate", "up")
        )
        gated = graph.op("Mul", [layers.silu(gate), up], f"{name}.mlp.gated")
        output = layers.linear(gated, f"{name}.mlp.down_proj", bias=False)
        return layers.add(rows, output, f"{name}.mlp.sum")
