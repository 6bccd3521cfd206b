"""Norms whose scale and shift come from the time (adaLN), and gates in front of residuals.

Peebles and Xie 2023 (https://arxiv.org/abs/2212.09748).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import LayerEmitter
from export.graph import scalar

EPSILON = 1e-6


def emit_modulation(layers: LayerEmitter, time: ir.Value, name: str, count: int) -> list[ir.Value]:
    """`count` rows [B, 1, C] from the time, [B, 1, C], which is active already."""
    stacked = layers.linear(time, name)  # [B, 1, count * C]
    names = [f"{name}.part_{index}" for index in range(count)]
    return layers.graph.ops("Split", [stacked], names, axis=-1, num_outputs=count)


def modulated_norm(
    layers: LayerEmitter, x: ir.Value, scale: ir.Value, shift: ir.Value, name: str
) -> ir.Value:
    """norm(x) * (1 + scale) + shift, for rows x [B, S, C] and [B, 1, C] of scale and shift.

    One node: the runtime lets each element of the batch have a scale and a shift of its own.
    """
    graph = layers.graph
    one = graph.constant("one", scalar(1, np.float32))
    factor = graph.op("Add", [scale, one], f"{name}.scale")
    return graph.op("LayerNormalization", [x, factor, shift], name, axis=-1, epsilon=EPSILON)


def final_norm(layers: LayerEmitter, x: ir.Value, time: ir.Value, name: str) -> ir.Value:
    """`AdaLayerNormContinuous`: here the scale comes before the shift."""
    scale, shift = emit_modulation(layers, time, f"{name}.linear", 2)
    return modulated_norm(layers, x, scale, shift, f"{name}.norm")


def add_gated(
    layers: LayerEmitter, x: ir.Value, gate: ir.Value, y: ir.Value, name: str
) -> ir.Value:
    """x + gate * y, for rows [B, S, C] and a gate [B, 1, C]."""
    gated = layers.graph.op("Mul", [gate, y], f"{name}.gated")
    return layers.add(x, gated, name)
