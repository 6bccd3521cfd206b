"""Division by the root mean square of the last axis."""

from __future__ import annotations

import onnx_ir as ir

from export.diffusion.layers import LayerEmitter

EPSILON = 1e-6


def rms_norm(layers: LayerEmitter, x: ir.Value, name: str, epsilon: float = EPSILON) -> ir.Value:
    """[..., C] in and out."""
    return layers.graph.op(
        "SimplifiedLayerNormalization",
        [x, layers.weight(f"{name}.weight")],
        name,
        axis=-1,
        epsilon=epsilon,
    )
