"""What runs a graph on a GPU, as the runners see it: arrays by address, bound once, run often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ITEM_SIZES = {
    "bool": 1,
    "int8": 1,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "int32": 4,
    "int64": 8,
}
"""Bytes of one number, by the name of its type."""

_MAX_ROWS = 1024  # of a decode step; keys are below 2**31 for contexts of up to two million tokens


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """Where an array lies on the GPU. It owns nothing."""

    pointer: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]


class GpuSession(Protocol):
    """One compiled graph on a GPU; a thread at a time calls."""

    def bind(
        self,
        inputs: Mapping[str, DeviceArray],
        host_inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, DeviceArray],
    ) -> Any:
        """Say where a run reads and writes. Arrays on the host are read when it runs."""
        ...

    def run(self, binding: Any, graph_key: int | None) -> None:
        """Queue a run on the session's stream.

        Runs of the same key have the same shapes and addresses, so they may be recorded once and
        replayed; None is never recorded.

        Raises:
            RunFailed: The runtime rejected the inputs.
        """
        ...

    def close(self) -> None: ...


def length_bucket(length: int, longest: int) -> int:
    """A bound for lengths, of which there are few, so that few graphs are recorded: 1,024 and
    further powers of four, up to `longest`."""
    bound = 1024
    while bound < length:
        bound *= 4
    return min(bound, longest)


def decode_key(num_rows: int, bound: int) -> int:
    """The `graph_key` of a decode step of so many sequences that looks as far as a bound.

    Different ones for any two of them: the longest bound is seldom a power of four.
    """
    return 1 + num_rows + _MAX_ROWS * bound


def host_shape(array: NDArray[Any]) -> tuple[str, tuple[int, ...]]:
    """The type, by name, and the shape of an array."""
    return np.dtype(array.dtype).name, array.shape
