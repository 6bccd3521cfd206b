"""Writes a checkpoint of a shape with random weights, one tensor at a time, without torch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints.shapes import ChatShape
from benchmarks.checkpoints.vocabulary import tokenizer_files
from benchmarks.errors import BenchmarkFailed

_BYTES = 2  # of a bf16
_PIECE = 1 << 24  # values that are drawn at a time
_SHARD_BYTES = 4_000_000_000


def make_chat_checkpoint(
    folder: Path, shape: ChatShape, seed: int = 0, max_shard_bytes: int = _SHARD_BYTES
) -> None:
    """Write configuration, tokenizer and bf16 weights of a chat model into a new folder.

    The same seed gives the same bytes. Norms and biases are random too, so that one which gets
    lost shows in what the model computes.

    Raises:
        BenchmarkFailed: The folder exists already.
    """
    if folder.exists():
        raise BenchmarkFailed(f"{folder} exists already: name a new folder")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    first = shape.num_text_tokens
    generation = {"bos_token_id": first, "eos_token_id": [first + 2, first], "pad_token_id": first}
    files = {"config.json": shape.config(), "generation_config.json": generation}
    for name, content in (files | tokenizer_files(first, seed)).items():
        text = content if isinstance(content, str) else _json(content)
        (partial / name).write_text(text, encoding="utf-8")
    _write_weights(partial, shape.tensors(), seed, max_shard_bytes)
    partial.rename(folder)


def write_tensors(
    path: Path, tensors: dict[str, tuple[int, ...]], rng: np.random.Generator
) -> None:
    """Write one safetensors file of random bf16 weights."""
    with path.open("wb") as file:
        _write_shard(file, tensors, rng)


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _write_weights(
    folder: Path, tensors: dict[str, tuple[int, ...]], seed: int, max_shard_bytes: int
) -> None:
    shards = list(_shards(tensors, max_shard_bytes))
    rng = np.random.default_rng(seed)
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (folder / name).open("wb") as file:
            _write_shard(file, {tensor: tensors[tensor] for tensor in names}, rng)
        where |= dict.fromkeys(names, name)
    if len(shards) > 1:
        total = sum(_BYTES * math.prod(shape) for shape in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(_json(index), encoding="utf-8")


def _shards(tensors: dict[str, tuple[int, ...]], max_bytes: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in tensors.items():
        num_bytes = _BYTES * math.prod(shape)
        if names and size + num_bytes > max_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += num_bytes
    yield names


def _write_shard(
    file: BinaryIO, tensors: dict[str, tuple[int, ...]], rng: np.random.Generator
) -> None:
    """One safetensors file: the length of its header, the header, the values."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + _BYTES * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for name, shape in tensors.items():
        for piece in _values(name, math.prod(shape), rng):
            file.write(piece.tobytes())


def _values(name: str, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.uint16]]:
    for start in range(0, count, _PIECE):
        size = min(_PIECE, count - start)
        if name.endswith("norm.weight"):
            values = rng.uniform(0.8, 1.2, size).astype(np.float32)
        else:
            values = rng.standard_normal(size, dtype=np.float32) * np.float32(0.02)
        yield to_bf16(values)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of finite floats, rounded to the nearest (ties to even)."""
    bits = values.view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype(np.uint16)
