"""FP8 matrices as Qwen's and DeepSeek's checkpoints and compressed-tensors store them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from export.errors import CheckpointError
from export.quantized.layouts import Tensors, check_parts, part, read_floats
from export.safetensors_file import FloatArray, StoredTensor


@dataclass(frozen=True)
class Fp8Matrix:
    """E4M3 numbers with a scale for each block of rows and columns."""

    weight: StoredTensor
    scale: StoredTensor
    block: tuple[int, int]
    bits: int = 8

    @property
    def shape(self) -> tuple[int, int]:
        num_rows, num_columns = self.weight.shape
        return num_rows, num_columns

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        return (self.weight, self.scale)

    def integers(self) -> None:
        return None

    def rows(self, start: int, stop: int) -> FloatArray:
        num_columns = self.shape[1]
        octets = self.weight.rows(start, stop).raw()
        height, width = self.block
        scale = self._scales[np.arange(start, stop) // height]  # [stop - start, blocks]
        weight: FloatArray = E4M3[octets] * scale[:, np.arange(num_columns) // width]
        return weight

    @cached_property
    def _scales(self) -> FloatArray:
        num_rows, num_columns = self.shape
        blocks = (-(-num_rows // self.block[0]), -(-num_columns // self.block[1]))
        return read_floats(self.scale).reshape(blocks)

    def forget(self) -> None:
        """Nothing large is held."""


def _e4m3_table() -> FloatArray:
    """The 256 numbers of E4M3: sign, four bits of exponent, three of mantissa; 0x7f is NaN."""
    code = np.arange(256)
    sign = np.where(code & 0x80, -1.0, 1.0)
    exponent, mantissa = code >> 3 & 0xF, code & 0x7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    value = sign * np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)
    value[(code & 0x7F) == 0x7F] = np.nan
    return value.astype(np.float32)


E4M3 = _e4m3_table()


def read_fp8(module: str, tensors: Tensors, block: tuple[int, int] | None) -> Fp8Matrix:
    """`weight` E4M3 [N, K], multiplied by `weight_scale_inv` or `weight_scale`.

    Args:
        module: The matrix's name without `.weight`.
        tensors: All tensors of the checkpoint.
        block: Rows and columns that share a scale, where the config says so.
    """
    weight = part(tensors, module, "weight")
    names = ("weight_scale_inv", "weight_scale")
    scale = next((tensors[f"{module}.{n}"] for n in names if f"{module}.{n}" in tensors), None)
    if scale is None:
        raise CheckpointError(f"the checkpoint has no tensor '{module}.weight_scale_inv'")
    num_rows, num_columns = weight.shape
    if scale.shape in ((), (1,), (1, 1)):
        return Fp8Matrix(weight, scale, (num_rows, num_columns))
    if scale.shape in ((num_rows,), (num_rows, 1)) and block is None:
        return Fp8Matrix(weight, scale, (1, num_columns))
    height, width = block or (128, 128)
    check_parts(module, (scale, (-(-num_rows // height), -(-num_columns // width))))
    return Fp8Matrix(weight, scale, (height, width))
