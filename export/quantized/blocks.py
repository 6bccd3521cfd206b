"""`IntegerBlocks`: a quantized matrix in one form, whatever layout a checkpoint stores it in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.safetensors_file import FloatArray

_BLOCK_SIZES = (256, 128, 64, 32, 16)  # what MatMulNBits takes


@dataclass(frozen=True, slots=True)
class IntegerBlocks:
    """weight[n, columns[k]] = (values[n, k] - zero_points[n, g]) * scales[n, g], g = k // group.

    Attributes:
        bits: 4 or 8.
        group_size: Columns that share a scale.
        values: [N, K], unsigned.
        scales: [N, groups].
        zero_points: [N, groups]; None stands for the middle, 8 or 128.
        columns: [K], which column of the matrix each stored one is; None where they lie in order.
    """

    bits: int
    group_size: int
    values: NDArray[np.uint8]
    scales: FloatArray
    zero_points: NDArray[np.uint8] | None = None
    columns: NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        num_rows, num_columns = self.values.shape
        return num_rows, num_columns

    @property
    def middle(self) -> int:
        """What stands for zero where there are no zero points."""
        return 1 << (self.bits - 1)

    @property
    def block_size(self) -> int | None:
        """The largest block of MatMulNBits that groups consist of; None where none does."""
        return next((size for size in _BLOCK_SIZES if self.group_size % size == 0), None)

    @property
    def is_by_rows(self) -> bool:
        """Whether it is int8 with one scale a row around zero."""
        is_whole = self.scales.shape[1] == 1 and self.zero_points is None
        return self.bits == 8 and is_whole and self.columns is None

    def zeros(self) -> NDArray[np.uint8]:
        """The zero points, the middle where there are none. [N, groups]"""
        if self.zero_points is not None:
            return self.zero_points
        return np.full(self.scales.shape, self.middle, np.uint8)

    def cut(self, start: int, stop: int) -> IntegerBlocks:
        """Rows `start` to `stop` (half-open) as a matrix of their own."""
        rows = slice(start, stop)
        zeros = None if self.zero_points is None else self.zero_points[rows]
        return replace(self, values=self.values[rows], scales=self.scales[rows], zero_points=zeros)

    def signed_rows(self) -> NDArray[np.int8]:
        """The values around zero, of int8 without zero points. [N, K]"""
        return (self.values ^ np.uint8(128)).view(np.int8)

    def rows(self, start: int, stop: int) -> FloatArray:
        """Rows `start` to `stop` (half-open) in float32, their columns in order."""
        num_columns = self.values.shape[1]
        group = np.arange(num_columns) // self.group_size  # [K]
        zero: Any = self.middle if self.zero_points is None else self.zero_points[start:stop, group]
        shifted = self.values[start:stop].astype(np.float32) - zero
        weight: FloatArray = shifted * self.scales[start:stop, group]
        if self.columns is None:
            return weight
        ordered = np.empty_like(weight)
        ordered[:, self.columns] = weight
        return ordered

    def packed(self, block_size: int) -> tuple[NDArray[np.uint8], FloatArray, NDArray[np.uint8]]:
        """As MatMulNBits reads it: values [N, blocks, bytes], scales and packed zero points.

        Groups are cut into blocks of `block_size`, which repeat their group's scale.
        """
        num_rows, num_columns = self.values.shape
        num_blocks = -(-num_columns // block_size)
        group = np.arange(num_blocks) * block_size // self.group_size  # [blocks]
        scales = self.scales[:, group]  # [N, blocks]
        zeros = self.zeros()[:, group]
        padding = num_blocks * block_size - num_columns
        values = np.pad(self.values, ((0, 0), (0, padding)))
        if padding:
            values[:, num_columns:] = zeros[:, -1:]
        values = values.reshape(num_rows, num_blocks, block_size)
        if self.bits == 8:
            return values, scales, zeros
        even = np.pad(zeros, ((0, 0), (0, num_blocks % 2)))  # rows of zero points end on a byte
        return pack_nibbles(values), scales, pack_nibbles(even)


def pack_nibbles(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two numbers of four bits a byte along the last axis, the even one in the low half."""
    packed: NDArray[np.uint8] = values[..., 0::2] | (values[..., 1::2] << np.uint8(4))
    return packed


def unpack_words(words: NDArray[np.int32], bits: int) -> NDArray[np.uint8]:
    """The numbers in words of 32 bits along the last axis, the lowest bits first."""
    octets = np.ascontiguousarray(words).astype("<i4", copy=False).view(np.uint8)
    if bits == 8:
        return octets
    nibbles = np.stack([octets & 0xF, octets >> 4], axis=-1)
    return nibbles.reshape(*octets.shape[:-1], -1)
