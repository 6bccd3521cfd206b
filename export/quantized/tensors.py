"""The tensors of a quantized checkpoint by the names that they would have without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from export.errors import CheckpointError
from export.quantized.blocks import IntegerBlocks
from export.quantized.layouts import QuantizedMatrix
from export.safetensors_file import FloatArray, StoredTensor
from export.tensor_files import Rows, TensorFiles


@dataclass(frozen=True)
class MatrixRows:
    """Rows `start` to `stop` (half-open) of a matrix, as one of its own."""

    matrix: QuantizedMatrix
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.stop - self.start, self.matrix.shape[1]

    @property
    def bits(self) -> int:
        return self.matrix.bits

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        return self.matrix.tensors

    def integers(self) -> IntegerBlocks | None:
        whole = self.matrix.integers()
        return None if whole is None else whole.cut(self.start, self.stop)

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.matrix.rows(self.start + start, self.start + stop)

    def forget(self) -> None:
        self.matrix.forget()


class QuantizedTensorFiles(TensorFiles):
    """Gives every matrix as `MODULE.weight` in float32, and on demand as the integers it is.

    Args:
        tensors: All that the files hold.
        matrices: The quantized ones by `MODULE.weight`.
        description: How they are stored, for people to read.
    """

    def __init__(
        self,
        tensors: dict[str, StoredTensor],
        matrices: dict[str, QuantizedMatrix],
        description: str,
    ) -> None:
        super().__init__(tensors)
        self._matrices = matrices
        self._held: QuantizedMatrix | None = None
        self.description = description
        self.kept: set[str] = set()  # matrices that were taken as integers
        self.dequantized: set[str] = set()

    @property
    def bits(self) -> int:
        """The smallest number of bits of a matrix."""
        return min(matrix.bits for matrix in self._matrices.values())

    def renamed(self, rename: Callable[[str], str]) -> QuantizedTensorFiles:
        """The same under other names."""
        return QuantizedTensorFiles(
            {rename(name): self.stored(name) for name in self},
            {rename(name): matrix for name, matrix in self._matrices.items()},
            self.description,
        )

    def taken(self, sources: Mapping[str, Rows]) -> QuantizedTensorFiles:
        """Rows of tensors and of quantized matrices under new names."""
        matrices: dict[str, QuantizedMatrix] = {
            name: MatrixRows(self._matrices[rows.tensor], rows.start, rows.stop)
            for name, rows in sources.items()
            if rows.tensor in self._matrices
        }
        parts = {id(part) for matrix in matrices.values() for part in matrix.tensors}
        stored = {name: self.stored(name) for name in self if id(self.stored(name)) in parts}
        stored |= {
            name: self.stored(rows.tensor).rows(rows.start, rows.stop)
            for name, rows in sources.items()
            if name not in matrices
        }
        return QuantizedTensorFiles(stored, matrices, self.description)

    @property
    def plain_names(self) -> list[str]:
        """All tensors as they would be named if nothing were quantized."""
        parts = {id(part) for matrix in self._matrices.values() for part in matrix.tensors}
        plain = [name for name in self if id(self.stored(name)) not in parts]
        readable = [name for name in plain if self.stored(name).is_float]
        return [*readable, *self._matrices]

    def __contains__(self, name: str) -> bool:
        return name in self._matrices or super().__contains__(name)

    def bits_of(self, name: str) -> int | None:
        """Of a quantized matrix; None of one that is not."""
        return self._matrices[name].bits if name in self._matrices else None

    def require(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self._matrices:
            super().require(name, shape)
        elif self._matrices[name].shape != shape:
            raise CheckpointError(
                f"the quantized matrix {name!r} has the shape {list(self._matrices[name].shape)}, "
                f"but config.json asks for {list(shape)}"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        return self._matrices[name].shape if name in self._matrices else super().shape(name)

    def read_rows(self, name: str, start: int, stop: int) -> FloatArray:
        if name not in self._matrices:
            return super().read_rows(name, start, stop)
        self.dequantized.add(name)
        rows = self._hold(name).rows(start, stop)
        if not np.isfinite(rows).all():
            raise CheckpointError(f"the quantized matrix {name!r} holds NaN or infinity")
        return rows

    def integers(self, name: str) -> IntegerBlocks | None:
        if name not in self._matrices:
            return None
        return self._hold(name).integers()

    def conversion(self, precision: str) -> str:
        """The sentence that says what became of the quantized matrices."""
        total = len(self.kept | self.dequantized)
        if not self.dequantized:
            return f"{total} matrices are as the checkpoint stores them: {self.description}"
        changed = "to fp32" if precision == "fp32" else f"and quantized again to {precision}"
        sentence = f"{len(self.dequantized)} matrices were expanded from {self.description}"
        if self.kept:
            return f"{sentence}, {changed}; {len(self.kept)} are as the checkpoint stores them"
        return f"{sentence}, {changed}"

    def _hold(self, name: str) -> QuantizedMatrix:
        """A matrix, whose memory is given back when another one is asked for."""
        matrix = self._matrices[name]
        if self._held is not matrix:
            if self._held is not None:
                self._held.forget()
            self._held = matrix
        return matrix
