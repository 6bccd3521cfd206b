"""The tensors of a checkpoint by name, plain or sharded, as float32 and without torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.errors import CheckpointError
from export.safetensors_file import FLOAT_DTYPES, FloatArray, StoredTensor, read_header

TRANSFORMERS_STEM = "model"  # model.safetensors, model.safetensors.index.json
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_HASH_BLOCK = 1 << 22  # bytes
_BLOCK_ELEMENTS = 1 << 23


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` (half-open) of a tensor."""

    tensor: str
    start: int
    stop: int


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
        if tensor.dtype not in FLOAT_DTYPES:
            raise CheckpointError(
                f"tensor {name!r} in {tensor.path.name} is stored as {tensor.dtype}, "
                f"but only {', '.join(FLOAT_DTYPES)} can be compiled: "
                "use the checkpoint that was not quantized"
            )

    def stored(self, name: str) -> StoredTensor:
        """Where a tensor lies, to be given another name or form."""
        return self._tensors[name]

    def taken(self, sources: Mapping[str, Rows]) -> TensorFiles:
        """Rows of tensors under new names."""
        return TensorFiles(
            {
                name: self._tensors[rows.tensor].rows(rows.start, rows.stop)
                for name, rows in sources.items()
            }
        )

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
