"""The projections of a layer's queries, keys and values, as attention kernels take them."""

from __future__ import annotations

import onnx_ir as ir

from export.graph import GraphBuilder
from export.linear import LinearEmitter, Projection
from export.qwen.config import DecoderConfig
from export.tensor_files import TensorFiles


class HeadProjections:
    """Emits q, k and v, and reads the weights of the norms of their heads.

    Args:
        config: The decoder's shape.
        graph: Takes the nodes.
        linear: Emits the projections.
        tensors: The checkpoint's tensors.
        query_scale: [..., 1], where queries are scaled by their position.
    """

    def __init__(
        self,
        config: DecoderConfig,
        graph: GraphBuilder,
        linear: LinearEmitter,
        tensors: TensorFiles,
        query_scale: ir.Value | None = None,
    ) -> None:
        self._config = config
        self._graph = graph
        self._linear = linear
        self._tensors = tensors
        self._query_scale = query_scale

    def emit(self, x: ir.Value, layer: int) -> list[ir.Value | None]:
        """[..., hidden] -> q, k and v, or all in one value where nothing comes between."""
        if self._config.packs_qkv:
            return [self._linear.emit(x, self.projection(layer, "qkv")), None, None]
        return [*self.emit_apart(x, layer)]

    def emit_apart(self, x: ir.Value, layer: int) -> list[ir.Value]:
        """[..., hidden] -> q, k and v, [..., heads * head_dim] each."""
        q, k, v = (self._linear.emit(x, self.projection(layer, kind)) for kind in "qkv")
        if self._query_scale is not None:
            q = self._graph.op("Mul", [q, self._query_scale], f"layers.{layer}.attention.q_scaled")
        return [q, k, v]

    def projection(self, layer: int, kinds: str) -> Projection:
        """The weights of some of q, k and v, stacked."""
        names = tuple(f"model.layers.{layer}.self_attn.{kind}_proj" for kind in kinds)
        return Projection(
            f"layers.{layer}.attention.{kinds}",
            weights=tuple(f"{name}.weight" for name in names),
            biases=tuple(f"{name}.bias" for name in names) if self._config.qkv_bias else (),
        )

    def norm_weights(self, layer: int) -> tuple[ir.Value, ir.Value]:
        """The weights of the norms of q's and k's heads, [head_dim] each."""
        query, key = (self._norm_weight(layer, kind) for kind in "qk")
        return query, key

    def _norm_weight(self, layer: int, kind: str) -> ir.Value:
        weight = self._tensors.read(f"model.layers.{layer}.self_attn.{kind}_norm.weight")
        return self._graph.weight(f"layers.{layer}.attention.{kind}_norm.weight", weight)
