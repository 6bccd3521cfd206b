"""Nodes that multiply by matrices as the checkpoint stores them, integers and scales untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from export.graph import CONTRIB, GraphBuilder
from export.precision import Layout
from export.quantized.blocks import IntegerBlocks
from export.quantized.tensors import QuantizedTensorFiles
from export.tensor_files import TensorFiles

_BITS: dict[Layout, int] = {"int4": 4, "int8": 8}


def kept_integers(
    tensors: TensorFiles, names: tuple[str, ...], layout: Layout
) -> list[IntegerBlocks] | None:
    """The matrices of a projection, where all are stored in what the layout asks for."""
    bits = _BITS.get(layout)
    if bits is None or not isinstance(tensors, QuantizedTensorFiles):
        return None
    found: list[IntegerBlocks] = []
    for name in names:
        integers = tensors.integers(name) if tensors.bits_of(name) == bits else None
        if integers is None or integers.block_size is None:
            return None
        found.append(integers)
    tensors.kept.update(names)
    return _stacked(found)


def emit_integers(
    graph: GraphBuilder, x: ir.Value, node: str, matrices: list[IntegerBlocks]
) -> ir.Value:
    """Multiply by matrices that stand one below the other, [..., K] -> [..., N].

    Where columns lie in another order, the input is brought into it, which changes no number.
    """
    if len(matrices) == 1:
        return _emit_one(graph, x, node, matrices[0])
    parts = [_emit_one(graph, x, f"{node}.{i}", matrix) for i, matrix in enumerate(matrices)]
    return graph.op("Concat", list(parts), f"{node}.joined", axis=-1)


def _emit_one(graph: GraphBuilder, x: ir.Value, node: str, matrix: IntegerBlocks) -> ir.Value:
    assert matrix.block_size is not None
    if matrix.columns is not None:
        order = graph.weight(f"{node}.columns", matrix.columns)
        x = graph.op("Gather", [x, order], f"{node}.ordered", axis=-1)
    packed, scales, zeros = matrix.packed(matrix.block_size)
    inputs: list[ir.Value | None] = [
        x,
        graph.weight(f"{node}.weight", packed),
        graph.weight(f"{node}.scale", scales.reshape(-1)),
    ]
    if matrix.zero_points is not None:
        inputs.append(graph.weight(f"{node}.zero_point", zeros.reshape(-1)))
    num_rows, num_columns = matrix.shape
    return graph.op(
        "MatMulNBits",
        inputs,
        f"{node}.matmul",
        domain=CONTRIB,
        K=num_columns,
        N=num_rows,
        bits=matrix.bits,
        block_size=matrix.block_size,
        accuracy_level=4,  # int8 products; without it every call expands the weights
    )


def _stacked(matrices: list[IntegerBlocks]) -> list[IntegerBlocks]:
    """One matrix where all have the same groups of columns, in the same order."""
    first = matrices[0]
    if len(matrices) == 1 or not all(_is_alike(first, other) for other in matrices[1:]):
        return matrices
    zeros = None
    if any(matrix.zero_points is not None for matrix in matrices):
        zeros = np.concatenate([matrix.zeros() for matrix in matrices])
    return [
        replace(
            first,
            values=np.concatenate([matrix.values for matrix in matrices]),
            scales=np.concatenate([matrix.scales for matrix in matrices]),
            zero_points=zeros,
        )
    ]


def _is_alike(first: IntegerBlocks, second: IntegerBlocks) -> bool:
    if first.group_size != second.group_size:
        return False
    if first.columns is None or second.columns is None:
        return first.columns is second.columns
    return bool((first.columns == second.columns).all())
