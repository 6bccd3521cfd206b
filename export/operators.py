"""The steps of a transformer that targets spell differently: fused by ONNX Runtime, or standard."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx_ir as ir

from export.graph import CONTRIB, GraphBuilder


class Operators(Protocol):
    """Emits one step under the name `node`."""

    def multiply(self, x: ir.Value, weight: ir.Value, node: str) -> ir.Value:
        """x W^T, [..., K] and [N, K] -> [..., N]."""
        ...

    def normalize(self, x: ir.Value, weight: ir.Value, node: str, epsilon: float) -> ir.Value:
        """RMS norm over the last axis."""
        ...

    def add_and_normalize(
        self, x: ir.Value, residual: ir.Value, weight: ir.Value, node: str, epsilon: float
    ) -> tuple[ir.Value, ir.Value]:
        """RMS norm of the sum, and the sum."""
        ...

    def gate(self, gate: ir.Value, up: ir.Value, node: str) -> ir.Value:
        """SiLU of `gate` times `up`."""
        ...


class OrtOperators:
    """Operators of ONNX Runtime that do a step in one node, on CPU and on CUDA."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph

    def multiply(self, x: ir.Value, weight: ir.Value, node: str) -> ir.Value:
        return self._graph.op("FusedMatMul", [x, weight], node, domain=CONTRIB, transB=1)

    def normalize(self, x: ir.Value, weight: ir.Value, node: str, epsilon: float) -> ir.Value:
        return self._graph.op(
            "SimplifiedLayerNormalization", [x, weight], node, axis=-1, epsilon=epsilon
        )

    def add_and_normalize(
        self, x: ir.Value, residual: ir.Value, weight: ir.Value, node: str, epsilon: float
    ) -> tuple[ir.Value, ir.Value]:
        normed, _, _, total = self._graph.ops(
            "SkipSimplifiedLayerNormalization",
            [x, residual, weight],
            [node, "", "", f"{node}.residual"],
            domain=CONTRIB,
            epsilon=epsilon,
        )
        return normed, total

    def gate(self, gate: ir.Value, up: ir.Value, node: str) -> ir.Value:
        # x * sigmoid(alpha * x) with alpha = 1 is SiLU, in one node instead of two.
        activated = self._graph.op("QuickGelu", [gate], f"{node}.silu", domain=CONTRIB, alpha=1.0)
        return self._graph.op("Mul", [activated, up], f"{node}.gated")


class StandardOperators:
    """Operators of the ONNX standard alone, which TensorRT reads and fuses by itself."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph
        self._transposed: dict[ir.Value, ir.Value] = {}

    def multiply(self, x: ir.Value, weight: ir.Value, node: str) -> ir.Value:
        if weight not in self._transposed:
            self._transposed[weight] = self._graph.op(
                "Transpose", [weight], f"{weight.name}.transposed", perm=[1, 0]
            )
        return self._graph.op("MatMul", [x, self._transposed[weight]], node)

    def normalize(self, x: ir.Value, weight: ir.Value, node: str, epsilon: float) -> ir.Value:
        return self._graph.op("RMSNormalization", [x, weight], node, axis=-1, epsilon=epsilon)

    def add_and_normalize(
        self, x: ir.Value, residual: ir.Value, weight: ir.Value, node: str, epsilon: float
    ) -> tuple[ir.Value, ir.Value]:
        total = self._graph.op("Add", [x, residual], f"{node}.residual")
        return self.normalize(total, weight, node, epsilon), total

    def gate(self, gate: ir.Value, up: ir.Value, node: str) -> ir.Value:
        sigmoid = self._graph.op("Sigmoid", [gate], f"{node}.sigmoid")
        activated = self._graph.op("Mul", [gate, sigmoid], f"{node}.silu")
        return self._graph.op("Mul", [activated, up], f"{node}.gated")


def whole_axis_end() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The end of a slice that takes everything to the end of an axis."""
    return np.array([np.iinfo(np.int64).max], np.int64)
