"""Memory that a session fills is moved into huge pages, other memory is not, and data stays."""

from __future__ import annotations

import ctypes
import mmap
import threading
from pathlib import Path

import numpy as np
import pytest

from engines.backends.huge_pages import HUGE_PAGE, THREAD_NAME, in_huge_pages, resident_mappings

SMAPS = """\
10000000-10800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                8192 kB
20000000-20800000 rw-p 00000000 00:00 0                                  [heap]
Size:               8192 kB
Rss:                7800 kB
30000000-30800000 rw-p 00000000 00:00 0
Rss:                 100 kB
40000000-40800000 rw-p 00001000 fe:00 1234                               /engine/model.onnx.data
Rss:                8192 kB
50000000-50800000 r--p 00000000 00:00 0
Rss:                8192 kB
60000000-60001000 rw-p 00000000 00:00 0
Rss:                   4 kB
"""


def test_large_private_mappings_that_are_nearly_all_resident_are_found():
    assert resident_mappings(SMAPS) == [(0x10000000, 0x10800000), (0x20000000, 0x20800000)]


def huge_bytes(address: int) -> int:
    """Bytes in huge pages of the mapping that holds an address."""
    is_inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            is_inside = start <= address < end
        elif is_inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return 0


def can_collapse() -> bool:
    memory = mmap.mmap(-1, 4 * HUGE_PAGE)
    memory.write(bytes(4 * HUGE_PAGE))
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return bool(madvise(first, HUGE_PAGE, 25) == 0)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux lists mappings")
def test_what_was_filled_lies_in_huge_pages_and_holds_the_same():
    if not can_collapse():
        pytest.skip("this kernel gives no huge pages on demand")
    earlier = np.arange(4 * HUGE_PAGE, dtype=np.uint32)
    array = in_huge_pages(lambda: np.arange(4 * HUGE_PAGE, dtype=np.uint32))
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join()
    assert huge_bytes(array.ctypes.data + 2 * HUGE_PAGE) >= 2 * HUGE_PAGE
    assert np.array_equal(array, earlier)
