"""Host memory for the states of slots: one array a state, its pages given back on release."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from engines.manifest import StateSpec


class SlotArray:
    """One state of all slots, `array` [num_slots, heads, num_rows, width].

    `num_rows` is for a state that grows; another has as many as its specification says.

    The memory is anonymous and reserved, not resident: a page counts when a token is written to
    it. Huge pages are declined, since one token would make 2 MiB resident in every head.
    """

    def __init__(self, spec: StateSpec, num_slots: int, num_rows: int) -> None:
        dtype = np.dtype(spec.dtype)
        if not spec.grows:
            assert spec.rows is not None
            num_rows = spec.rows
        shape = (num_slots, spec.heads, num_rows, spec.width)
        self._slot_bytes = spec.heads * num_rows * spec.width * dtype.itemsize
        self._map = mmap.mmap(-1, num_slots * self._slot_bytes, flags=_FLAGS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self.grows = spec.grows
        self.bytes_per_token = spec.heads * spec.width * dtype.itemsize if spec.grows else 0
        self.bytes_per_slot = 0 if spec.grows else self._slot_bytes
        self.array: NDArray[np.generic] = np.frombuffer(self._map, dtype).reshape(shape)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        rows = slice(num_tokens if self.grows else None)
        self.array[target, :, rows] = self.array[source, :, rows]

    def swap(self, first: int, second: int, num_first: int, num_second: int) -> None:
        if not self.grows:
            num_first = num_second = self.array.shape[2]
        kept = self.array[first, :, :num_first].copy()
        self.array[first, :, :num_second] = self.array[second, :, :num_second]
        self.array[second, :, :num_first] = kept

    def release(self, slot: int) -> None:
        """Give back the whole pages that lie inside a slot; what is left of it is undefined."""
        start = -(-slot * self._slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (slot + 1) * self._slot_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
