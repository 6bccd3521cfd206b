"""Tensors of a checkpoint with rows and columns multiplied wherever they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from export.safetensors_file import FloatArray, StoredTensor
from export.tensor_files import TensorFiles


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a tensor is multiplied by; None is ones.

    Attributes:
        rows: [num_rows]
        columns: [num_columns]
    """

    rows: FloatArray | None = None
    columns: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ScaledTensor(StoredTensor):
    """A stored tensor, merged or not, and what it is multiplied by."""

    source: StoredTensor
    scaling: Scaling

    def rows(self, start: int, stop: int) -> StoredTensor:
        part = self.source.rows(start, stop)
        rows = self.scaling.rows
        scaling = replace(self.scaling, rows=None if rows is None else rows[start:stop])
        return scale(part, scaling)

    def elements(self, first: int, count: int) -> FloatArray:
        width = math.prod(self.shape[1:])
        start, stop = first // width, -(-(first + count) // width)
        values = self.source.elements(start * width, (stop - start) * width).reshape(-1, width)
        if self.scaling.columns is not None:
            values = values * self.scaling.columns
        if self.scaling.rows is not None:
            values = values * self.scaling.rows[start:stop, None]
        return values.reshape(-1)[first - start * width :][:count]


def scale(tensor: StoredTensor, scaling: Scaling) -> ScaledTensor:
    """A tensor of rows and columns, or a vector, whose elements are its rows."""
    return ScaledTensor(tensor.path, tensor.dtype, tensor.shape, tensor.offset, tensor, scaling)


def scale_all(tensors: TensorFiles, scalings: Mapping[str, Scaling]) -> TensorFiles:
    """The same tensors, those that are named multiplied."""
    return TensorFiles(
        {
            name: scale(tensors.stored(name), scalings[name])
            if name in scalings
            else tensors.stored(name)
            for name in tensors
        }
    )


def combine(
    scaling: Scaling | None, rows: FloatArray | None, columns: FloatArray | None
) -> Scaling:
    """One more multiplication of a tensor, by rows or columns that nothing multiplied before."""
    old = scaling or Scaling()
    return Scaling(old.rows if rows is None else rows, old.columns if columns is None else columns)
