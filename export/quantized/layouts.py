"""The layouts of matrices of integers, each read into `IntegerBlocks`.

Facts: GPTQ as AutoGPTQ and GPTQModel write it, AWQ as AutoAWQ's `gemm` kernels read it, and
compressed-tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from export.errors import CheckpointError
from export.quantized.blocks import IntegerBlocks, unpack_words
from export.safetensors_file import FloatArray, StoredTensor

# Within a word AutoAWQ stores column AWQ_ORDER[i] in nibble i.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

Tensors = dict[str, StoredTensor]


class QuantizedMatrix(Protocol):
    """One matrix of a checkpoint that is not stored in floating point."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def bits(self) -> int: ...

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """What it is stored in."""
        ...

    def integers(self) -> IntegerBlocks | None:
        """It as integers; None where it is no such thing."""
        ...

    def rows(self, start: int, stop: int) -> FloatArray:
        """Rows `start` to `stop` (half-open) in float32."""
        ...

    def forget(self) -> None:
        """Give back the memory of what was read."""
        ...


@dataclass(frozen=True)
class IntegerMatrix:
    """A matrix of integers, read when it is first asked for and held until the next one is."""

    shape: tuple[int, int]
    bits: int
    tensors: tuple[StoredTensor, ...]
    load: Callable[[], IntegerBlocks]

    @cached_property
    def _blocks(self) -> IntegerBlocks:
        return self.load()

    def integers(self) -> IntegerBlocks:
        return self._blocks

    def rows(self, start: int, stop: int) -> FloatArray:
        return self._blocks.rows(start, stop)

    def forget(self) -> None:
        """Give back the memory of what was read."""
        self.__dict__.pop("_blocks", None)


def read_gptq(module: str, tensors: Tensors, bits: int, zero_offset: int) -> IntegerMatrix:
    """`qweight` [K / n, N], `qzeros` [groups, N / n], `scales` [groups, N] and `g_idx` [K].

    Args:
        module: The matrix's name without `.weight`.
        tensors: All tensors of the checkpoint.
        bits: 4 or 8.
        zero_offset: Added to what is stored as a zero point: 1 in the first version of the format.
    """
    names = ("qweight", "qzeros", "scales")
    words, zeros, scales = (part(tensors, module, name) for name in names)
    order = tensors.get(f"{module}.g_idx")
    num_columns, num_rows = words.shape[0] * 32 // bits, words.shape[1]
    num_groups = scales.shape[0]
    check_parts(
        module,
        (scales, (num_groups, num_rows)),
        (zeros, (num_groups, num_rows * bits // 32)),
        *([] if order is None else [(order, (num_columns,))]),
    )

    def load() -> IntegerBlocks:
        values = unpack_words(words.raw().T, bits)  # [N, K]
        # Zero points wrap around: 15 of 4 bits stands for 0 in the first version.
        zero = unpack_words(zeros.raw(), bits).T + np.uint8(zero_offset)  # [N, groups]
        zero &= np.uint8((1 << bits) - 1)
        blocks = IntegerBlocks(
            bits, _group_size(num_columns, num_groups), values, read_floats(scales).T, zero
        )
        blocks = _without_middle(blocks)
        return blocks if order is None else _ordered(module, blocks, order.raw())

    return IntegerMatrix(
        (num_rows, num_columns), bits, (words, zeros, scales, *([order] if order else [])), load
    )


def read_awq(module: str, tensors: Tensors) -> IntegerMatrix:
    """`qweight` [K, N / 8] and `qzeros` [groups, N / 8] of words, `scales` [groups, N]."""
    names = ("qweight", "qzeros", "scales")
    words, zeros, scales = (part(tensors, module, name) for name in names)
    num_columns, num_rows = words.shape[0], words.shape[1] * 8
    num_groups = scales.shape[0]
    check_parts(module, (scales, (num_groups, num_rows)), (zeros, (num_groups, num_rows // 8)))

    def load() -> IntegerBlocks:
        return IntegerBlocks(
            4,
            _group_size(num_columns, num_groups),
            np.ascontiguousarray(_unpack_awq(words.raw()).T),
            read_floats(scales).T,
            _unpack_awq(zeros.raw()).T,
        )

    return IntegerMatrix((num_rows, num_columns), 4, (words, zeros, scales), load)


def read_packed(module: str, tensors: Tensors) -> IntegerMatrix:
    """compressed-tensors' pack-quantized: `weight_packed` [N, K / n] of words and `weight_scale`.

    Numbers are stored with half their range added; zero points [groups, N] are packed along N.
    """
    words, scales = (part(tensors, module, name) for name in ("weight_packed", "weight_scale"))
    zeros, order = (
        tensors.get(f"{module}.{name}") for name in ("weight_zero_point", "weight_g_idx")
    )
    num_rows = words.shape[0]
    num_columns = int(part(tensors, module, "weight_shape").raw()[1])
    bits = next((n for n in (4, 8) if -(-num_columns * n // 32) == words.shape[1]), None)
    if bits is None:
        raise CheckpointError(
            f"{module}.weight_packed holds {num_columns} columns in {words.shape[1]} words, but "
            "only 4 and 8 bits are read: use the checkpoint that was not quantized"
        )
    num_groups = scales.shape[1] if len(scales.shape) == 2 else 1
    check_parts(
        module,
        *([] if scales.shape == (num_rows,) else [(scales, (num_rows, num_groups))]),
        *([] if zeros is None else [(zeros, (-(-num_rows * bits // 32), num_groups))]),
    )

    def load() -> IntegerBlocks:
        values = unpack_words(words.raw(), bits)[:, :num_columns]
        zero = None
        if zeros is not None:
            zero = unpack_words(zeros.raw().T, bits).T[:num_rows]  # [N, groups]
        scale = read_floats(scales).reshape(num_rows, num_groups)
        blocks = IntegerBlocks(bits, _group_size(num_columns, num_groups), values, scale, zero)
        groups = None if order is None else order.raw()
        if groups is None or (groups < 0).all():
            return blocks
        return _ordered(module, blocks, groups)

    parts = [part for part in (words, scales, zeros, order) if part is not None]
    return IntegerMatrix((num_rows, num_columns), bits, tuple(parts), load)


def read_int8(module: str, tensors: Tensors) -> IntegerMatrix:
    """compressed-tensors' int-quantized: `weight` int8 [N, K] and `weight_scale` of any grain."""
    weight, scales = (part(tensors, module, name) for name in ("weight", "weight_scale"))
    zeros = tensors.get(f"{module}.weight_zero_point")
    num_rows, num_columns = weight.shape
    num_groups = scales.shape[1] if len(scales.shape) == 2 else 1
    if scales.shape not in ((), (1,), (1, 1), (num_rows,), (num_rows, num_groups)):
        check_parts(module, (scales, (num_rows, num_groups)))

    def load() -> IntegerBlocks:
        def spread(array: NDArray[Any]) -> NDArray[Any]:
            whole = array.reshape(-1, num_groups)
            return np.ascontiguousarray(np.broadcast_to(whole, (num_rows, num_groups)))

        shifted = weight.raw().view(np.uint8) ^ np.uint8(128)  # int8 + 128
        zero = None if zeros is None else spread(zeros.raw().view(np.uint8) ^ np.uint8(128))
        blocks = IntegerBlocks(
            8,
            _group_size(num_columns, num_groups),
            shifted,
            spread(read_floats(scales)),
            zero,
        )
        return _without_middle(blocks)

    parts = [part for part in (weight, scales, zeros) if part is not None]
    return IntegerMatrix((num_rows, num_columns), 8, tuple(parts), load)


def read_floats(tensor: StoredTensor) -> FloatArray:
    """A whole tensor of floating point in its own shape.

    Raises:
        CheckpointError: It is of another type, or holds NaN or infinity.
    """
    values = tensor.elements(0, int(np.prod(tensor.shape))).reshape(tensor.shape)
    if not np.isfinite(values).all():
        raise CheckpointError(f"{tensor.path.name} holds scales that are NaN or infinity")
    return values


def part(tensors: Tensors, module: str, name: str) -> StoredTensor:
    """One tensor of a matrix.

    Raises:
        CheckpointError: There is none.
    """
    found = tensors.get(f"{module}.{name}")
    if found is None:
        raise CheckpointError(f"the checkpoint has no tensor '{module}.{name}'")
    return found


def check_parts(module: str, *parts: tuple[StoredTensor, tuple[int, ...]]) -> None:
    """Check the shapes of the tensors of a matrix against each other.

    Raises:
        CheckpointError: One does not fit.
    """
    for tensor, shape in parts:
        if tensor.shape != shape:
            raise CheckpointError(
                f"a tensor of the quantized matrix {module!r} in {tensor.path.name} has the shape "
                f"{list(tensor.shape)}, but the others ask for {list(shape)}"
            )


def _group_size(num_columns: int, num_groups: int) -> int:
    return -(-num_columns // num_groups)


def _unpack_awq(words: NDArray[np.int32]) -> NDArray[np.uint8]:
    stored = unpack_words(words, 4).reshape(*words.shape, 8)
    columns = np.empty_like(stored)
    columns[..., list(AWQ_ORDER)] = stored
    return columns.reshape(words.shape[0], -1)


def _without_middle(blocks: IntegerBlocks) -> IntegerBlocks:
    """Without zero points where all of them are the middle, as in symmetric quantization."""
    if blocks.zero_points is None or not (blocks.zero_points == blocks.middle).all():
        return blocks
    return IntegerBlocks(
        blocks.bits, blocks.group_size, blocks.values, blocks.scales, None, blocks.columns
    )


def _ordered(module: str, blocks: IntegerBlocks, group_of: NDArray[np.int32]) -> IntegerBlocks:
    """Bring columns of one group together, where groups were formed by importance."""
    num_columns = blocks.shape[1]
    if (group_of == np.arange(num_columns) // blocks.group_size).all():
        return blocks
    columns = np.argsort(group_of, kind="stable").astype(np.int64)
    if not (group_of[columns] == np.arange(num_columns) // blocks.group_size).all():
        raise CheckpointError(
            f"the groups of {module}.g_idx are not of one size, {blocks.group_size} columns: use "
            "the checkpoint that was not quantized"
        )
    values = np.ascontiguousarray(blocks.values[:, columns])
    return IntegerBlocks(
        blocks.bits, blocks.group_size, values, blocks.scales, blocks.zero_points, columns
    )
