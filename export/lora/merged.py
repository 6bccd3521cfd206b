"""A tensor of a checkpoint with low-rank matrices added to it, a block of rows at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from export.errors import CheckpointError
from export.safetensors_file import FloatArray, StoredTensor


@dataclass(frozen=True, slots=True)
class LowRankDelta:
    """What a LoRA adds to one tensor: scale * up @ down, read when it is needed.

    With `mid` the product is one of three: up @ mid @ down, for each pixel of the kernel.

    Attributes:
        up: [num_rows, rank], for convolutions [num_rows, rank, 1, 1].
        down: [rank, ...], as wide as the tensor's rows; with `mid` [rank, in_channels, 1, 1].
        mid: [rank, rank, kernel, kernel] where there is one.
        scale: The strength of the LoRA and its own alpha together.
    """

    up: StoredTensor
    down: StoredTensor
    mid: StoredTensor | None
    scale: float

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    @property
    def width(self) -> int:
        """Numbers in a row of the product."""
        kernel = 1 if self.mid is None else math.prod(self.mid.shape[2:])
        return math.prod(self.down.shape[1:]) * kernel

    def elements(self, first: int, count: int) -> FloatArray:
        """`count` numbers of the product, in the order of its rows, from `first` on. [count]

        Raises:
            CheckpointError: The product holds NaN or infinity, or a file ends early.
        """
        width, rank = self.width, self.rank
        start, stop = first // width, -(-(first + count) // width)
        up = self.up.elements(start * rank, (stop - start) * rank).reshape(-1, rank)
        rows: FloatArray = np.matmul(np.float32(self.scale) * up, self._down(), dtype=np.float32)
        if not np.isfinite(rows).all():
            raise CheckpointError(f"{self.up.path} holds NaN or infinity")
        return rows.reshape(-1)[first - start * width :][:count]

    def _down(self) -> FloatArray:
        """[rank, width]"""
        down = _read(self.down)
        if self.mid is None:
            return down.reshape(len(down), -1)
        mid = _read(self.mid)  # [rank, rank, kernel, kernel]
        inner = down.reshape(len(down), -1)  # [rank, in_channels]
        product = np.einsum("pqhw,qi->pihw", mid, inner, optimize=True)
        return np.ascontiguousarray(product.reshape(len(mid), -1))


@dataclass(frozen=True, slots=True)
class MergedTensor(StoredTensor):
    """A stored tensor, and what is added to it wherever it is read.

    Attributes:
        deltas: Each as large as the whole tensor.
        first: The number of the whole tensor that this part of it begins with.
    """

    deltas: tuple[LowRankDelta, ...] = ()
    first: int = 0

    def rows(self, start: int, stop: int) -> StoredTensor:
        part = StoredTensor.rows(self, start, stop)
        assert isinstance(part, MergedTensor)
        return replace(part, first=self.first + start * math.prod(self.shape[1:]))

    def elements(self, first: int, count: int) -> FloatArray:
        # A copy: what is stored in float32 comes back as it was read.
        values = StoredTensor.elements(self, first, count).copy()
        for delta in self.deltas:
            values += delta.elements(self.first + first, count)
        return values


def merge(tensor: StoredTensor, delta: LowRankDelta) -> MergedTensor:
    """Add one more delta to a tensor."""
    if isinstance(tensor, MergedTensor):
        return replace(tensor, deltas=(*tensor.deltas, delta))
    return MergedTensor(tensor.path, tensor.dtype, tensor.shape, tensor.offset, (delta,))


def _read(tensor: StoredTensor) -> FloatArray:
    return tensor.elements(0, math.prod(tensor.shape)).reshape(tensor.shape)
