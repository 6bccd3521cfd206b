"""Pages of weights files that were read once, while a session was opened, are given back.

A runtime maps the weights file and packs most of what it reads into memory of its own. What it was
packed from stays resident beside it where the runtime keeps the tensor, as it does the scales of
int4: at the 0.5B shape in blocks of 32 that is an eighth of all that the process holds.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)$")
_SMAPS = Path("/proc/self/smaps")


def release_file_pages(folder: Path) -> None:
    """Let go of what is resident of the files in `folder`; a page that is read again comes back.

    The system's cache keeps the pages, so that takes about a microsecond each. Where Linux's calls
    are missing, nothing changes.
    """
    if not hasattr(mmap, "MADV_DONTNEED") or not _SMAPS.exists():
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in clean_mappings(_SMAPS.read_text(), folder.resolve()):
        madvise(start, end - start, mmap.MADV_DONTNEED)


def clean_mappings(smaps: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Addresses where files in `folder` are mapped and no page was written to.

    A page that was written to is a private copy, "anonymous", and letting it go would lose it.
    """
    start = end = 0
    for line in smaps.splitlines():
        header = _HEADER.match(line)
        if header:
            start = end = 0
            if header[3] and Path(header[3]).parent == folder:
                start, end = int(header[1], 16), int(header[2], 16)
        elif line.split() == ["Anonymous:", "0", "kB"] and end > start:
            yield start, end
