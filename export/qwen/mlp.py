"""The second half of a decoder's layer: one gated MLP, or a mixture of experts."""

from __future__ import annotations

import onnx_ir as ir

from export.graph import GraphBuilder
from export.linear import LinearEmitter, Projection
from export.operators import Operators
from export.qwen.config import DecoderConfig
from export.qwen.experts import ExpertsEmitter


def mlp_nodes(config: DecoderConfig, layer: int) -> list[str]:
    """The nodes of a layer's MLP whose precision can be chosen."""
    gated = ["gate", "up", "down"]
    experts = config.experts
    if experts is None or layer not in experts.layers:
        return [f"mlp.{kind}" for kind in gated]
    has_shared = experts.shared_intermediate_size is not None
    return ["mlp.experts", *(f"mlp.shared.{kind}" for kind in gated if has_shared)]


class MlpEmitter:
    """Emits a layer's MLP, whichever kind the layer has."""

    def __init__(
        self,
        config: DecoderConfig,
        graph: GraphBuilder,
        linear: LinearEmitter,
        experts: ExpertsEmitter,
        operators: Operators,
    ) -> None:
        self._config = config
        self._graph = graph
        self._linear = linear
        self._experts = experts
        self._operators = operators

    def emit(self, x: ir.Value, layer: int) -> ir.Value:
        """[..., hidden] -> [..., hidden]."""
        node, tensor = f"layers.{layer}.mlp", f"model.layers.{layer}.mlp"
        experts = self._config.experts
        if experts is None or layer not in experts.layers:
            return self._gated(x, node, tensor)
        routed = self._experts.emit(x, node, tensor)
        if experts.shared_intermediate_size is None:
            return routed
        graph = self._graph
        shared = self._gated(x, f"{node}.shared", f"{tensor}.shared_expert")
        opened = self._experts.logits(x, f"{node}.shared_gate", f"{tensor}.shared_expert_gate")
        share = graph.op("Sigmoid", [opened], f"{node}.shared_share")  # [..., 1]
        weighted = graph.op("Mul", [shared, share], f"{node}.shared_weighted")
        return graph.op("Add", [routed, weighted], f"{node}.routed_and_shared")

    def _gated(self, x: ir.Value, node: str, tensor: str) -> ir.Value:
        gate = self._linear.emit(x, _projection(node, tensor, "gate"))
        # The scale of up's rows passes through the product with the gate, into that of down's.
        up, row_scale = self._linear.emit_unscaled(x, _projection(node, tensor, "up"))
        gated = self._operators.gate(gate, up, node)
        return self._linear.emit(gated, _projection(node, tensor, "down"), row_scale)


def _projection(node: str, tensor: str, kind: str) -> Projection:
    return Projection(f"{node}.{kind}", (f"{tensor}.{kind}_proj.weight",))
