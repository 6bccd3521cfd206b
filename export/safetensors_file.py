"""One file of safetensors: what its header says, and tensors read from where they lie.

Reads go through the file, not through a memory map: pages of a map count as memory of the
process until the kernel takes them back, and a file that shrinks under a map ends the process.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import CheckpointError

FloatArray = NDArray[np.float32]

_MAX_HEADER = 100_000_000  # bytes; the limit of the format's own reader
FLOAT_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
# What quantized matrices are stored in; E4M3 numbers are read as bytes.
_RAW_DTYPES: Mapping[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: its file, type, shape and first byte."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def is_float(self) -> bool:
        """Whether it can be read as float32."""
        return self.dtype in FLOAT_DTYPES

    def rows(self, start: int, stop: int) -> StoredTensor:
        """The rows `start` to `stop` (half-open) as a tensor of their own."""
        row_bytes = math.prod(self.shape[1:]) * _dtype_of(self.dtype).itemsize
        return replace(
            self, shape=(stop - start, *self.shape[1:]), offset=self.offset + start * row_bytes
        )

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor:
        """The same numbers in another shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{list(self.shape)} cannot be seen as {list(shape)}")
        return replace(self, shape=shape)

    def elements(self, first: int, count: int) -> FloatArray:
        """`count` numbers from `first` on, in the order in which they lie. [count]

        Raises:
            CheckpointError: The file ends early.
        """
        if self.dtype not in FLOAT_DTYPES:
            raise CheckpointError(
                f"a tensor in {self.path.name} is stored as {self.dtype}, but has to be of "
                f"{', '.join(FLOAT_DTYPES)}"
            )
        dtype = FLOAT_DTYPES[self.dtype]
        offset = self.offset + first * dtype.itemsize
        stored = np.fromfile(self.path, dtype, count, offset=offset)
        if stored.size != count:
            raise CheckpointError(f"{self.path} was cut short while it was read")
        return _to_float32(stored, self.dtype)

    def raw(self) -> NDArray[Any]:
        """The whole tensor as it is stored, in its shape.

        Raises:
            CheckpointError: The file ends early, or the type cannot be read.
        """
        count = math.prod(self.shape)
        if self.dtype not in _RAW_DTYPES:
            raise CheckpointError(
                f"a quantized matrix in {self.path.name} is stored as {self.dtype}, but only "
                f"{', '.join(_RAW_DTYPES)} can be read"
            )
        stored = np.fromfile(self.path, _RAW_DTYPES[self.dtype], count, offset=self.offset)
        if stored.size != count:
            raise CheckpointError(f"{self.path} was cut short while it was read")
        return stored.reshape(self.shape)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, checked against the file's length.

    Raises:
        CheckpointError: The file is truncated, or its header is not that of safetensors.
    """
    return read_header_and_metadata(path)[0]


def read_header_and_metadata(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The same, and what the file says of itself.

    Raises:
        CheckpointError: The file is truncated, or its header is not that of safetensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise CheckpointError(f"{path} is truncated: it has {size} bytes")
        (header_size,) = struct.unpack("<Q", prefix)
        if header_size > _MAX_HEADER:
            raise CheckpointError(f"{path} is not a safetensors file")
        if 8 + header_size > size:
            raise CheckpointError(f"{path} is truncated: it ends inside its header")
        header = file.read(header_size)
    data_start = 8 + header_size
    try:
        entries = json.loads(header)
        metadata = {str(key): str(text) for key, text in entries.pop("__metadata__", {}).items()}
        parsed = {name: _parse_entry(path, data_start, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path} is not a safetensors file, or is damaged") from None
    end = max((stop for _, stop in parsed.values()), default=data_start)
    if end > size:
        raise CheckpointError(
            f"{path} is truncated: it has {size} bytes, its header asks for {end}"
        )
    return {name: tensor for name, (tensor, _) in parsed.items()}, metadata


def _parse_entry(path: Path, data_start: int, entry: dict[str, Any]) -> tuple[StoredTensor, int]:
    """One header entry and its end; a ValueError if shape, type and length disagree."""
    shape = tuple(int(size) for size in entry["shape"])
    start, stop = (int(offset) for offset in entry["data_offsets"])
    dtype = FLOAT_DTYPES.get(entry["dtype"]) or _RAW_DTYPES.get(entry["dtype"])
    expected = math.prod(shape) * dtype.itemsize if dtype else stop - start
    if start < 0 or min(shape, default=0) < 0 or stop - start != expected:
        raise ValueError(f"{entry} contradicts itself")
    return StoredTensor(path, entry["dtype"], shape, data_start + start), data_start + stop


def _dtype_of(name: str) -> np.dtype[Any]:
    return FLOAT_DTYPES[name] if name in FLOAT_DTYPES else _RAW_DTYPES[name]


def _to_float32(stored: NDArray[Any], dtype: str) -> FloatArray:
    if dtype == "BF16":  # the upper half of a float32
        widened = stored.astype(np.uint32)
        widened <<= 16
        return widened.view(np.float32)
    return stored.astype(np.float32, copy=False)
