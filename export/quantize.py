"""Weight-only quantization, a block of rows at a time: int8 with a scale a row, int4 by blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.precision import INT8_MAX

FloatArray = NDArray[np.float32]

INT8_ZERO = 128  # where int8 weights are stored without a sign
INT4_BLOCK_SIZES = (32, 128)
INT4_ZERO = 8  # a nibble n stands for (n - 8) * scale

# Shrinking a block's scale clips its largest weight and represents all others more finely; these
# shares of the full range are tried and the one with the least squared error is kept.
_INT4_RANGES = (1.0, 0.95, 0.9, 0.85, 0.8)

_SAMPLED_ROWS = 256
_TOLERATED_GROWTH = 1.1  # of the error, for blocks four times as long


def quantize_rows(
    weight: FloatArray, largest: int = INT8_MAX
) -> tuple[NDArray[np.int8], FloatArray]:
    """Quantize each row to int8 with one scale: weight = q * scale[:, None].

    Args:
        weight: [N, K].
        largest: What the largest number of each row becomes.

    Returns:
        q [N, K] in -largest..largest and scale [N]. A row of zeros gets the scale 1, because a
        scale of 0 has no inverse.
    """
    scale = np.abs(weight).max(axis=1) / np.float32(largest)  # [N]
    scale[scale == 0] = 1
    q = np.rint(weight / scale[:, None]).astype(np.int8)  # [N, K]
    return q, scale


def quantize_blocks(weight: FloatArray, block_size: int) -> tuple[NDArray[np.uint8], FloatArray]:
    """Quantize each block of `block_size` columns to int4 as MatMulNBits reads it.

    Args:
        weight: [N, K]; where K is no multiple of the block, the last block is filled with zeros.
        block_size: Weights that share a scale.

    Returns:
        Nibbles [N, blocks, block_size / 2], the even column of a pair in the low half, and scales
        [N, blocks].
    """
    num_rows, num_columns = weight.shape
    num_blocks = -(-num_columns // block_size)
    padded = np.pad(weight, ((0, 0), (0, num_blocks * block_size - num_columns)))
    blocks = padded.reshape(num_rows, num_blocks, block_size)  # [N, blocks, block_size]
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    best_error = np.full(extreme.shape, np.inf, np.float32)  # [N, blocks, 1]
    best_scale = np.ones_like(extreme)
    for share in _INT4_RANGES:
        # The weight of largest size lands on -8, so that all sixteen values are used.
        scale = extreme * np.float32(-share / INT4_ZERO)
        scale[scale == 0] = 1
        error = np.square(_round_int4(blocks, scale) * scale - blocks).sum(-1, keepdims=True)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
    nibbles = (_round_int4(blocks, best_scale) + INT4_ZERO).astype(np.uint8)
    high = nibbles[..., 1::2] << np.uint8(4)
    packed = nibbles[..., 0::2] | high  # [N, blocks, block_size / 2]
    return packed, best_scale[..., 0]


def quantize_blocks_int8(
    weight: FloatArray, block_size: int
) -> tuple[NDArray[np.uint8], FloatArray]:
    """Quantize each block of `block_size` columns to int8 as QMoE reads it.

    Args:
        weight: [N, K], K a multiple of the block.
        block_size: Weights that share a scale.

    Returns:
        Bytes [N, K], of which 128 stands for 0, and scales [N, blocks].
    """
    blocks = weight.reshape(len(weight), -1, block_size)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(INT8_MAX)  # [N, blocks, 1]
    scale[scale == 0] = 1
    q = (np.rint(blocks / scale) + INT8_ZERO).astype(np.uint8)
    return q.reshape(weight.shape), scale[..., 0]


def dequantize_blocks(
    packed: NDArray[np.uint8], scales: FloatArray, num_columns: int
) -> FloatArray:
    """What `quantize_blocks` stands for, [N, num_columns]."""
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=-1)  # [N, blocks, block_size / 2, 2]
    blocks = nibbles.reshape(*scales.shape, -1).astype(np.float32) - INT4_ZERO
    weight: FloatArray = (blocks * scales[..., None]).reshape(len(packed), -1)
    return weight[:, :num_columns]


def choose_block_size(weight: FloatArray) -> int:
    """128 where that costs next to no accuracy, since it is faster; otherwise 32.

    Args:
        weight: [N, K]; a sample of its rows decides.
    """
    sample = weight[:: max(1, len(weight) // _SAMPLED_ROWS)]
    small, large = (
        float(
            np.linalg.norm(
                dequantize_blocks(*quantize_blocks(sample, size), sample.shape[1]) - sample
            )
        )
        for size in (INT4_BLOCK_SIZES[0], INT4_BLOCK_SIZES[-1])
    )
    return INT4_BLOCK_SIZES[-1] if large <= _TOLERATED_GROWTH * small else INT4_BLOCK_SIZES[0]


def _round_int4(blocks: FloatArray, scale: FloatArray) -> FloatArray:
    rounded: FloatArray = np.clip(np.rint(blocks / scale), -INT4_ZERO, INT4_ZERO - 1)
    return rounded
