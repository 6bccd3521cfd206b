"""What is mapped of an engine's files is given back once it was packed."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from engines.backends.file_pages import clean_mappings, release_file_pages

MIB = 1 << 20
SMAPS = """\
7f0000000000-7f0000100000 rw-p 00010000 fe:00 24    /engines/tiny/model.onnx.data
Rss:                1024 kB
Anonymous:             0 kB
7f0000200000-7f0000300000 rw-p 00010000 fe:00 24    /engines/tiny/model.onnx.data
Rss:                1024 kB
Anonymous:             4 kB
7f0000400000-7f0000500000 r--p 00000000 fe:00 25    /engines/other/model.onnx.data
Anonymous:             0 kB
7f0000600000-7f0000700000 rw-p 00000000 00:00 0
Anonymous:             0 kB
"""

needs_smaps = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="the system does not say what is resident"
)


def resident(path: Path) -> int:
    """KiB of a file that are resident in this process."""
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_only_mappings_of_the_folder_that_nobody_wrote_to_are_let_go():
    found = list(clean_mappings(SMAPS, Path("/engines/tiny")))
    assert found == [(0x7F0000000000, 0x7F0000100000)]


@needs_smaps
@pytest.mark.parametrize("writes", [False, True])
def test_pages_of_a_file_are_given_back_unless_one_was_changed(tmp_path, writes):
    path = tmp_path / "weights"
    path.write_bytes(np.arange(MIB, dtype=np.uint32).tobytes())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    array = np.frombuffer(mapped, np.uint32)
    total = int(array.sum(dtype=np.int64))
    if writes:
        mapped[:4] = b"\7\0\0\0"
    before = resident(path)
    assert before > MIB // 1024
    release_file_pages(tmp_path)
    assert resident(path) == (before if writes else 0)
    assert int(array.sum(dtype=np.int64)) == total + (7 if writes else 0)
