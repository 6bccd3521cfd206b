"""The T5 encoder's graph: token ids in, a row for each token out.

Input: `input_ids` int64 [B, T]. Output: `hidden_states` float32 [B, T, d_model]. All tokens see
each other, padding too: that is what the denoisers were trained on.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import Advance, LayerEmitter
from export.diffusion.t5.config import EMBEDDING, FINAL_NORM, T5Config, t5_tensors
from export.diffusion.t5.positions import bucket_distances
from export.graph import CONTRIB, GraphBuilder
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles

_OTHER_EMBEDDING = "encoder.embed_tokens.weight"


def open_t5_tensors(config: T5Config, files: TensorFiles) -> TensorFiles:
    """Check every tensor; the embedding has two names, of which a checkpoint stores at least one.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    tensors = {}
    for name, shape in t5_tensors(config).items():
        is_renamed = name == EMBEDDING and name not in files and _OTHER_EMBEDDING in files
        stored_name = _OTHER_EMBEDDING if is_renamed else name
        files.require(stored_name, shape)
        tensors[name] = files.stored(stored_name)
    return TensorFiles(tensors)


def num_parts(config: T5Config) -> int:
    """How often an emission advances."""
    return config.num_layers + 1


def emit_t5_encoder(
    config: T5Config,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit everything; `advance` is told each part that is done.

    Args:
        config: The encoder's shape.
        tensors: What `open_t5_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.
    """
    T5Emitter(config, tensors, LayerEmitter(graph, tensors, precision)).emit(advance)


class T5Emitter:
    """Emits an encoder into a graph, layer by layer."""

    def __init__(self, config: T5Config, tensors: TensorFiles, layers: LayerEmitter) -> None:
        self._config = config
        self._tensors = tensors
        self._layers = layers
        self._graph = layers.graph

    def emit(self, advance: Advance) -> None:
        graph, config = self._graph, self._config
        input_ids = graph.input("input_ids", "int64", ["batch", "num_tokens"])
        rows = graph.op("Gather", [self._layers.weight(EMBEDDING), input_ids], "tokens")
        bias = self._emit_position_bias(input_ids)
        advance("embeddings")
        for layer in config.layer_names:
            rows = self._attend(rows, bias, f"{layer}.layer.0")
            rows = self._transform(rows, f"{layer}.layer.1")
            advance(layer)
        output = self._norm(rows, FINAL_NORM)
        shape: list[int | str] = ["batch", "num_tokens", config.hidden_size]
        graph.output(output, "hidden_states", "float32", shape)

    def _emit_position_bias(self, input_ids: ir.Value) -> ir.Value:
        """What the distance of two tokens adds to their score. [1, num_heads, T, T]"""
        graph, config = self._graph, self._config
        buckets = bucket_distances(config.num_buckets, config.max_distance)
        by_distance = self._tensors.read(config.position_bias)[buckets]  # [distances, num_heads]
        table = graph.weight("position_bias", by_distance)
        start, step = (graph.constant(f"positions.{n}", np.array(n, np.int64)) for n in (0, 1))
        count = graph.op("Shape", [input_ids], "num_tokens", start=1, end=2)
        scalar_shape = graph.constant("positions.scalar", np.array([], np.int64))
        stop = graph.op("Reshape", [count, scalar_shape], "positions.stop")
        keys = graph.op("Range", [start, stop, step], "positions")  # [T]
        last = graph.constant("last_axis", np.array([-1]))
        queries = graph.op("Unsqueeze", [keys, last], "positions.queries")  # [T, 1]
        distance = graph.op("Sub", [keys, queries], "distance")  # [T, T]
        far = config.max_distance
        limits = [graph.constant(f"distance.{n}", np.array(n, np.int64)) for n in (-far, far)]
        clipped = graph.op("Clip", [distance, *limits], "distance.clipped")
        index = graph.op("Add", [clipped, limits[1]], "distance.index")
        bias = graph.op("Gather", [table, index], "position_bias.by_pair")  # [T, T, num_heads]
        sorted_ = graph.op("Transpose", [bias], "position_bias.by_head", perm=[2, 0, 1])
        return graph.op(
            "Unsqueeze", [sorted_, graph.constant("first_axis", np.array([0]))], "position_bias.all"
        )

    def _attend(self, rows: ir.Value, bias: ir.Value, name: str) -> ir.Value:
        layers, attention = self._layers, f"{name}.SelfAttention"
        normed = self._norm(rows, f"{name}.layer_norm")
        query, key, value = (
            layers.linear(normed, f"{attention}.{kind}", bias=False) for kind in "qkv"
        )
        heads = self._graph.op(
            "MultiHeadAttention",
            [query, key, value, None, None, bias],
            f"{attention}.heads",
            domain=CONTRIB,
            num_heads=self._config.num_heads,
            scale=1.0,  # the scale of the scores is in the weights
        )
        output = layers.linear(heads, f"{attention}.o", bias=False)
        return layers.add(rows, output, f"{name}.sum")

    def _transform(self, rows: ir.Value, name: str) -> ir.Value:
        layers, dense = self._layers, f"{name}.DenseReluDense"
        normed = self._norm(rows, f"{name}.layer_norm")
        if self._config.is_gated:
            gate = layers.linear(normed, f"{dense}.wi_0", bias=False)
            active = self._graph.op("Gelu", [gate], f"{dense}.gelu", approximate="tanh")
            linear = layers.linear(normed, f"{dense}.wi_1", bias=False)
            hidden = self._graph.op("Mul", [active, linear], f"{dense}.gated")
        else:
            linear = layers.linear(normed, f"{dense}.wi", bias=False)
            hidden = self._graph.op("Relu", [linear], f"{dense}.relu")
        return layers.add(rows, layers.linear(hidden, f"{dense}.wo", bias=False), f"{name}.sum")

    def _norm(self, rows: ir.Value, name: str) -> ir.Value:
        return self._graph.op(
            "SimplifiedLayerNormalization",
            [rows, self._layers.weight(f"{name}.weight")],
            name,
            axis=-1,
            epsilon=self._config.epsilon,
        )
