"""The memory behind the KV cache: zero-copy views, moves between slots, pages given back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from engines.backends.slot_arrays import SlotArray
from engines.manifest import StateSpec

SPEC = StateSpec(input="past", output="present", heads=2, width=16)


def resident_bytes(array: SlotArray) -> int:
    """Pages of the array's own mapping that the kernel keeps in memory."""
    start = f"{array.array.ctypes.data:x}-"
    entries = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    entry = next(entry for entry in entries if entry.startswith(start))
    return int(re.search(r"Rss:\s+(\d+) kB", entry)[1]) * 1024


def test_copies_and_swaps_move_only_the_tokens_that_count():
    memory = SlotArray(SPEC, num_slots=3, num_rows=8)
    memory.array[0], memory.array[1], memory.array[2] = 1, 2, 3
    memory.copy(0, 2, num_tokens=3)
    assert (memory.array[2, :, :3] == 1).all()
    assert (memory.array[2, :, 3:] == 3).all()
    memory.swap(0, 1, num_first=5, num_second=2)
    assert (memory.array[0, :, :2] == 2).all()
    assert (memory.array[1, :, :5] == 1).all()


def test_a_range_of_slots_is_a_view_that_a_runtime_can_bind():
    memory = SlotArray(SPEC, num_slots=3, num_rows=8)
    view = memory.array[1:3]
    assert view.flags.c_contiguous
    assert view.ctypes.data == memory.array.ctypes.data + view[0].nbytes


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's smaps")
def test_memory_is_resident_only_where_tokens_were_written_and_is_given_back():
    rows = 1 << 14
    memory = SlotArray(SPEC, num_slots=4, num_rows=rows)
    assert resident_bytes(memory) == 0
    memory.array[1] = 1
    slot_bytes = memory.array[1].nbytes
    assert slot_bytes <= resident_bytes(memory) <= slot_bytes + 8192
    memory.array[2, :, :1] = 1
    assert resident_bytes(memory) <= slot_bytes + 4 * 8192, "a token made a huge page resident"
    memory.release(1)
    assert resident_bytes(memory) <= 4 * 8192
    assert np.all(memory.array[2, :, :1] == 1), "a neighbour's page was given back"
