"""What was found whole is remembered beside an engine, so that its next start need not read it all.

Hashes are there to find files that were cut short, mixed up or damaged on their way to this
machine; whoever may write to the folder can change the manifest too. A file that has not been
written to or replaced since it was hashed (the same size, inode and times of content and of
inode) has the same hash, unless the disk itself lost it. A copy, or a folder seen through another
mount, has other inodes or times, and is hashed anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

_RECORD = ".verified.json"
# A file that was written just now may be written again without a new time: clocks of file systems
# tick slowly.
_LEAST_AGE_NS = 2 * 10**9


class FileState(msgspec.Struct, frozen=True, array_like=True):
    """What changes when a file does, and the hash that its content had."""

    sha256: str
    size: int
    inode: int
    modified_ns: int  # the content
    changed_ns: int  # the inode: renamed, replaced, given other times

    @classmethod
    def of(cls, path: Path, sha256: str) -> FileState:
        found = path.stat()
        return cls(sha256, found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def is_settled(self) -> bool:
        newest = max(self.modified_ns, self.changed_ns)
        return time.time_ns() - newest >= _LEAST_AGE_NS


def is_known(folder: Path, states: Iterable[tuple[str, FileState]]) -> bool:
    """Whether all these files, by name, were found to be as they are now."""
    try:
        text = (folder / _RECORD).read_bytes()
        known = msgspec.json.decode(text, type=dict[str, FileState])
    except (OSError, msgspec.MsgspecError):
        return False
    return all(known.get(name) == state for name, state in states)


def remember(folder: Path, states: dict[str, FileState]) -> None:
    """Record that these files were found whole; without rights to write, nothing is remembered."""
    if not all(state.is_settled for state in states.values()):
        return
    partial = folder / f"{_RECORD}.{os.getpid()}"
    with contextlib.suppress(OSError):
        try:
            partial.write_bytes(msgspec.json.encode(states))
            partial.replace(folder / _RECORD)
        finally:
            partial.unlink(missing_ok=True)
