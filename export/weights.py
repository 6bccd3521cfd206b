"""The external data of graphs, `model.onnx.data`: written in one pass, hashed on the way."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from engines.manifest import FileEntry

# ONNX Runtime maps external data into memory by pages; a tensor that starts at a page boundary is
# used where it lies. Small ones only need the alignment of vector loads.
_PAGE = 4096
_VECTOR = 64
_BLOCK = 1 << 22  # bytes written and hashed at a time


def file_entry(path: Path) -> FileEntry:
    """Describe a file that is on the disk already."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileEntry(size=path.stat().st_size, sha256=digest.hexdigest())


class WeightsFile:
    """Appends tensors to one file; a context manager that closes it.

    An `OSError` of the disk passes through: the caller knows what to remove.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0
        self._tensors: dict[str, ir.ExternalTensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, name: str, array: NDArray[Any]) -> ir.ExternalTensor:
        """Write a tensor and return the reference that stands for it in the graph.

        Graphs may share a file: a tensor that another graph has brought is not written again.

        Raises:
            ValueError: There is another tensor of that name.
        """
        if name in self._tensors:
            self._require_same(self._tensors[name], array)
            return self._tensors[name]
        return self._append(name, array.shape, array.dtype, [array])

    def append_blocks(
        self,
        name: str,
        shape: tuple[int, ...],
        blocks: Iterable[NDArray[Any]],
        dtype: type[np.generic] = np.float32,
    ) -> ir.ExternalTensor:
        """The same for a tensor of `dtype` that comes in blocks of rows, of which one is held.

        Raises:
            ValueError: There is another tensor of that name, or the blocks are not the whole.
        """
        if name in self._tensors:
            raise ValueError(f"{self._path} has another tensor named {name!r}")
        return self._append(name, shape, np.dtype(dtype), blocks)

    def finish(self) -> FileEntry:
        """Bring the file to the disk and describe it for the manifest."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return FileEntry(size=self._size, sha256=self._digest.hexdigest())

    def _append(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        blocks: Iterable[NDArray[Any]],
    ) -> ir.ExternalTensor:
        num_bytes = math.prod(shape) * dtype.itemsize
        self._align(_PAGE if num_bytes >= _PAGE else _VECTOR)
        offset = self._size
        for block in blocks:
            self._write(_bytes_of(block))
        if self._size - offset != num_bytes:
            raise ValueError(
                f"tensor {name!r} came in {self._size - offset} bytes, but its shape asks for "
                f"{num_bytes}"
            )
        tensor = ir.ExternalTensor(
            self._path.name,
            offset,
            num_bytes,
            ir.DataType.from_numpy(dtype),
            shape=ir.Shape(shape),
            name=name,
            base_dir=self._path.parent,
        )
        self._tensors[name] = tensor
        return tensor

    def _require_same(self, tensor: ir.ExternalTensor, array: NDArray[Any]) -> None:
        self._file.flush()
        is_same = tensor.shape == array.shape and tensor.dtype == ir.DataType.from_numpy(
            array.dtype
        )
        with self._path.open("rb") as file:
            file.seek(tensor.offset or 0)
            if not is_same or file.read(array.nbytes) != _bytes_of(array):
                raise ValueError(f"{self._path} has another tensor named {tensor.name!r}")

    def _align(self, boundary: int) -> None:
        self._write(memoryview(bytes(-self._size % boundary)))

    def _write(self, content: memoryview) -> None:
        for start in range(0, len(content), _BLOCK):
            block = content[start : start + _BLOCK]
            self._file.write(block)
            self._digest.update(block)
        self._size += len(content)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
