"""A text encoder's graph: token ids in, a row for each token and the whole text's row out.

Input: `input_ids` int64 [B, T], T up to `max_position_embeddings`.
Outputs: `hidden_states` float32 [B, T, hidden_size], or `text_embeds` float32 [B, projection_dim],
or both; without a projection the latter is as wide as the former.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from export.diffusion.clip.config import PROJECTION, TextEncoderConfig
from export.diffusion.layers import Advance, LayerEmitter
from export.graph import GraphBuilder, scalar
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles

# Which layer's output the denoiser was trained on: the last one's, normalized, or what the last
# layer reads, as it is.
HiddenState = Literal["last", "penultimate"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the graph gives: a layer's rows or None, and whether the whole text's row."""

    hidden_state: HiddenState | None
    pooled: bool

    @property
    def needs_last_layer(self) -> bool:
        return self.pooled or self.hidden_state == "last"


def emit_text_encoder(
    config: TextEncoderConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    outputs: Outputs,
    advance: Advance,
) -> None:
    """Emit everything that the outputs need; `advance` is told each part that is done.

    Args:
        config: The encoder's shape.
        tensors: What `open_text_encoder_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        outputs: What the graph gives.
        advance: See above.
    """
    layers = LayerEmitter(graph, tensors, precision)
    TextEncoderEmitter(config, graph, layers).emit(outputs, advance)


def num_parts(config: TextEncoderConfig, outputs: Outputs) -> int:
    """How often an emission advances."""
    return config.num_layers + outputs.needs_last_layer


class TextEncoderEmitter:
    """Emits a text encoder into a graph, layer by layer."""

    def __init__(
        self, config: TextEncoderConfig, graph: GraphBuilder, layers: LayerEmitter
    ) -> None:
        self._config = config
        self._graph = graph
        self._layers = layers

    def emit(self, outputs: Outputs, advance: Advance) -> None:
        graph, config, layers = self._graph, self._config, self._layers
        input_ids = graph.input("input_ids", "int64", ["batch", "num_tokens"])
        rows = self._embed(input_ids)
        advance("embeddings")
        *earlier, last = config.layer_names
        for layer in earlier:
            rows = self._emit_layer(rows, layer)
            advance(layer)
        output = rows
        if outputs.needs_last_layer:
            last_rows = self._emit_layer(rows, last)
            final = layers.layer_norm(last_rows, "final_layer_norm", config.layer_norm_eps)
            output = final if outputs.hidden_state == "last" else rows
            if outputs.pooled:
                self._emit_text(final, input_ids)
            advance(last)
        if outputs.hidden_state is not None:
            shape: list[int | str] = ["batch", "num_tokens", config.hidden_size]
            graph.output(output, "hidden_states", "float32", shape)

    def _emit_text(self, rows: ir.Value, input_ids: ir.Value) -> None:
        text, width = self._pool(rows, input_ids), self._config.projection_dim
        if width is not None:
            text = self._layers.linear(text, PROJECTION, bias=False)
        shape: list[int | str] = ["batch", width or self._config.hidden_size]
        self._graph.output(text, "text_embeds", "float32", shape)

    def _embed(self, input_ids: ir.Value) -> ir.Value:
        graph, layers = self._graph, self._layers
        tokens = graph.op(
            "Gather", [layers.weight("embeddings.token_embedding.weight"), input_ids], "tokens"
        )  # [B, T, hidden_size]
        num_tokens = graph.op("Shape", [input_ids], "num_tokens", start=1, end=2)
        table = layers.weight("embeddings.position_embedding.weight")
        first = graph.constant("first_position", np.array([0]))
        positions = graph.op("Slice", [table, first, num_tokens], "positions")  # [T, hidden_size]
        return layers.add(tokens, positions, "embeddings")

    def _emit_layer(self, rows: ir.Value, name: str) -> ir.Value:
        config, layers = self._config, self._layers
        normed = layers.layer_norm(rows, f"{name}.layer_norm1", config.layer_norm_eps)
        query, key, value = (
            layers.linear(normed, f"{name}.self_attn.{kind}_proj") for kind in "qkv"
        )
        heads = layers.attention(
            query,
            key,
            value,
            f"{name}.self_attn",
            config.num_heads,
            config.hidden_size // config.num_heads,
            is_causal=True,
        )
        attended = layers.linear(heads, f"{name}.self_attn.out_proj")
        rows = layers.add(attended, rows, f"{name}.self_attn.sum")
        normed = layers.layer_norm(rows, f"{name}.layer_norm2", config.layer_norm_eps)
        hidden = self._activate(layers.linear(normed, f"{name}.mlp.fc1"))
        return layers.add(layers.linear(hidden, f"{name}.mlp.fc2"), rows, f"{name}.sum")

    def _activate(self, x: ir.Value) -> ir.Value:
        if self._config.hidden_act == "gelu":
            return self._layers.gelu(x)
        return self._layers.quick_gelu(x, "quick_gelu", alpha=1.702)

    def _pool(self, rows: ir.Value, input_ids: ir.Value) -> ir.Value:
        """The row of the token that ends each text, [B, T, hidden_size] -> [B, hidden_size]."""
        graph, marks = self._graph, input_ids
        if not self._config.pools_highest_id:
            eos = graph.constant("eos_token_id", scalar(self._config.eos_token_id, np.int64))
            is_eos = graph.op("Equal", [input_ids, eos], "is_eos")
            marks = graph.op("Cast", [is_eos], "eos_marks", to=ir.DataType.INT32.value)
        first = graph.op("ArgMax", [marks], "eos_position", axis=1, keepdims=1)  # [B, 1]
        return graph.op("GatherND", [rows, first], "pooled", batch_dims=1)
