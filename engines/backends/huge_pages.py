"""Weights in huge pages: a decode step reads all of them, and its time is that of the memory.

With pages of 4 KiB the processor looks up an address for every 4 KiB of weights, through two tables
in a virtual machine, and its prefetching stops at their ends. A runtime takes its memory from
malloc, and most systems give huge pages only to those who ask: so this asks for the memory that
was filled while a session was opened, once it lies there. That copies all of it, which takes about
as long as opening did, and so a thread does it while the first requests may already run.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

THREAD_NAME = "huge-pages"
HUGE_PAGE = 2 << 20  # bytes, on x86-64 and on arm64 with pages of 4 KiB
_MADV_COLLAPSE = 25  # Linux 6.1: copy what lies in a range into huge pages, now
_SMALLEST_SHARE = 0.9  # of a mapping that has to be resident: a huge page makes all of it so
_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)")
_SMAPS = Path("/proc/self/smaps")
_Opened = TypeVar("_Opened")


def in_huge_pages(open_session: Callable[[], _Opened]) -> _Opened:
    """Call `open_session`; a thread then moves what it left in memory into huge pages.

    Mappings that were there before, of files, and those that are not resident stay as they are.
    Where Linux cannot, or a container forbids it, nothing changes but the speed. Should memory be
    freed meanwhile, there is nothing to move, or what took its place is moved, which harms nobody.
    """
    before = set(resident_mappings(_read_smaps()))
    opened = open_session()
    new = [mapping for mapping in resident_mappings(_read_smaps()) if mapping not in before]
    threading.Thread(target=_collapse_all, args=(new,), name=THREAD_NAME, daemon=True).start()
    return opened


def resident_mappings(smaps: str) -> list[tuple[int, int]]:
    """Addresses of writable private mappings of no file that are large and nearly all resident."""
    found = []
    start = end = 0
    for line in smaps.splitlines():
        header = _HEADER.match(line)
        if header:
            start, end = int(header[1], 16), int(header[2], 16)
            is_private_memory = header[3] == "rw-p" and header[4] == "0"
            if not is_private_memory or end - start < HUGE_PAGE:
                start = end = 0
        elif line.startswith("Rss:") and end > start:
            resident = int(line.split()[1]) * 1024
            if resident >= _SMALLEST_SHARE * (end - start):
                found.append((start, end))
    return found


def _collapse_all(mappings: list[tuple[int, int]]) -> None:
    for start, end in mappings:
        _collapse(start, end)


def _collapse(start: int, end: int) -> None:
    """Ask for huge pages in the whole ones of a range; a refusal is none of our concern."""
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    length = end // HUGE_PAGE * HUGE_PAGE - first
    if length > 0:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        madvise(first, length, _MADV_COLLAPSE)


def _read_smaps() -> str:
    """Nothing where the system has other pages, or none of Linux's lists."""
    if os.sysconf("SC_PAGE_SIZE") != 4096:
        return ""
    try:
        return _SMAPS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
