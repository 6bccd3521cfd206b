"""Read tensors by name from safetensors files, plain or sharded, as float32 and without torch.

Reads go through the file, not through a memory map: pages of a map count as memory of the
process until the kernel takes them back, and a file that shrinks under a map ends the process.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import CheckpointError

FloatArray = NDArray[np.float32]

TRANSFORMERS_STEM = "model"  # model.safetensors, model.safetensors.index.json
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_MAX_HEADER = 100_000_000  # bytes; the limit of the format's own reader
_HASH_BLOCK = 1 << 22  # bytes
_BLOCK_ELEMENTS = 1 << 23
_STORED_DTYPES: Mapping[str, np.dtype[Any]] = {
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
        return self.dtype in _STORED_DTYPES

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
        if self.dtype not in _STORED_DTYPES:
            raise CheckpointError(
                f"a tensor in {self.path.name} is stored as {self.dtype}, but has to be of "
                f"{', '.join(_STORED_DTYPES)}"
            )
        dtype = _STORED_DTYPES[self.dtype]
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


class TensorFiles:
    """The tensors of a checkpoint, read one at a time."""

    def __init__(self, tensors: dict[str, StoredTensor]) -> None:
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    @property
    def paths(self) -> list[Path]:
        """The files that hold the tensors, in the order of their names."""
        return sorted({tensor.path for tensor in self._tensors.values()})

    @property
    def num_bytes(self) -> int:
        """The size of all files together."""
        return sum(path.stat().st_size for path in self.paths)

    def require(self, name: str, shape: tuple[int, ...]) -> None:
        """Check that a tensor is there, has this shape and a type that can be read.

        Raises:
            CheckpointError: It is not.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"the checkpoint has no tensor {name!r}")
        if tensor.shape != shape:
            raise CheckpointError(
                f"tensor {name!r} in {tensor.path.name} has the shape {list(tensor.shape)}, "
                f"but config.json asks for {list(shape)}"
            )
        if tensor.dtype not in _STORED_DTYPES:
            raise CheckpointError(
                f"tensor {name!r} in {tensor.path.name} is stored as {tensor.dtype}, "
                f"but only {', '.join(_STORED_DTYPES)} can be compiled: "
                "use the checkpoint that was not quantized"
            )

    def stored(self, name: str) -> StoredTensor:
        """Where a tensor lies, to be given another name or form."""
        return self._tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def read(self, name: str) -> FloatArray:
        """A whole tensor; beside the result itself little memory is taken."""
        out = np.empty(self.shape(name), np.float32)
        for start, rows in self.row_blocks(name):
            out[start : start + len(rows)] = rows
        return out

    def row_blocks(self, name: str) -> Iterator[tuple[int, FloatArray]]:
        """The tensor in blocks of rows of about 32 MB each, with the first row's index."""
        width = max(1, math.prod(self.shape(name)[1:]))
        step = max(1, _BLOCK_ELEMENTS // width)
        num_rows = self.shape(name)[0]
        for start in range(0, num_rows, step):
            yield start, self.read_rows(name, start, min(start + step, num_rows))

    def read_rows(self, name: str, start: int, stop: int) -> FloatArray:
        """Rows `start` to `stop` (half-open) of a tensor, [stop - start, ...].

        Raises:
            CheckpointError: The file ends early, or the rows hold NaN or infinity.
        """
        tensor = self._tensors[name]
        width = math.prod(tensor.shape[1:])
        flat = tensor.elements(start * width, (stop - start) * width)
        values = flat.reshape(stop - start, *tensor.shape[1:])
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {name!r} in {tensor.path.name} holds NaN or infinity")
        return values

    def sha256(self, advance: Callable[[int], None]) -> str:
        """A hash over the names, sizes and contents of the files; `advance` gets bytes done."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(_HASH_BLOCK):
                    digest.update(block)
                    advance(len(block))
        return digest.hexdigest()


def open_tensor_files(folder: Path, stem: str = TRANSFORMERS_STEM) -> TensorFiles:
    """Find a checkpoint's weights and check every header against its file.

    Args:
        folder: Where they lie.
        stem: How the files' names begin.

    Raises:
        CheckpointError: There are no safetensors weights, a shard is missing, or a file is
            truncated or damaged.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        return TensorFiles(_read_shards(index))
    if single.is_file():
        return TensorFiles(read_header(single))
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        raise CheckpointError(
            f"{folder} holds pickled weights ({pickled[0]}), which can run code when they are "
            "read: convert them to safetensors first"
        )
    raise CheckpointError(f"{folder} holds neither {single.name} nor {index.name}")


def _read_shards(index: Path) -> dict[str, StoredTensor]:
    folder = index.parent
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} is not an index of safetensors files") from None
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} names {shard!r}, which is not a file of its folder")
        if not (folder / shard).is_file():
            raise CheckpointError(f"{index.name} names {shard}, which is not in {folder}")
        tensors |= read_header(folder / shard)
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise CheckpointError(
            f"{index.name} says that {weight_map[missing[0]]} holds {missing[0]!r}, "
            "but no file does"
        )
    return tensors


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
    dtype = _STORED_DTYPES.get(entry["dtype"]) or _RAW_DTYPES.get(entry["dtype"])
    expected = math.prod(shape) * dtype.itemsize if dtype else stop - start
    if start < 0 or min(shape, default=0) < 0 or stop - start != expected:
        raise ValueError(f"{entry} contradicts itself")
    return StoredTensor(path, entry["dtype"], shape, data_start + start), data_start + stop


def _dtype_of(name: str) -> np.dtype[Any]:
    return _STORED_DTYPES[name] if name in _STORED_DTYPES else _RAW_DTYPES[name]


def _to_float32(stored: NDArray[Any], dtype: str) -> FloatArray:
    if dtype == "BF16":  # the upper half of a float32
        widened = stored.astype(np.uint32)
        widened <<= 16
        return widened.view(np.float32)
    return stored.astype(np.float32, copy=False)
