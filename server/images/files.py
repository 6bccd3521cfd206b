"""Pictures that are fetched by URL: kept for a while, in memory or in a folder.

The number of pictures and their bytes are bounded; the oldest one goes first. All methods may be
called by any thread.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

IMAGE_FILES = "/v1/images/files/"  # the path of the route, to which a name is added
_NUM_ID_BYTES = 16  # so many random ones cannot be guessed
_NAME = re.compile(rf"[0-9a-f]{{{2 * _NUM_ID_BYTES}}}\.(png|jpg|webp)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """How many pictures are kept, and how long."""

    max_files: int
    max_bytes: int
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class _Entry:
    num_bytes: int
    expiry: float


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A picture's file."""

    content: bytes
    seconds_left: float


class ImageFiles(ABC):
    """The files by name, which is an id nobody can guess and a suffix.

    The newest file is always kept, even if it is larger than all files together may be.

    Args:
        limits: Of all files together.
        clock: Seconds.
    """

    def __init__(self, limits: FileLimits, clock: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the oldest first
        self._num_bytes = 0

    @property
    def num_files(self) -> int:
        return len(self._entries)

    def put(self, content: bytes, suffix: str) -> str:
        """Keep a file.

        Args:
            content: What it holds.
            suffix: `png`, `jpg` or `webp`.

        Returns:
            Its name.

        Raises:
            OSError: The folder cannot be written to.
        """
        name = f"{secrets.token_hex(_NUM_ID_BYTES)}.{suffix}"
        self._write(name, content)
        with self._lock:
            self._note(name, len(content), self._clock() + self._limits.lifetime_s)
            self._make_room()
        return name

    def get(self, name: str) -> StoredFile | None:
        """The file of that name; None if there is none, or none any more."""
        with self._lock:
            entry = self._entries.get(name) or self._find(name)
        seconds_left = 0.0 if entry is None else entry.expiry - self._clock()
        content = self._read(name) if seconds_left > 0 else None
        return None if content is None else StoredFile(content, seconds_left)

    def purge(self) -> None:
        """Forget what has expired."""
        with self._lock:
            now = self._clock()
            while self._entries and next(iter(self._entries.values())).expiry <= now:
                self._drop_oldest()

    def _make_room(self) -> None:
        limits = self._limits
        while len(self._entries) > 1 and (
            len(self._entries) > limits.max_files or self._num_bytes > limits.max_bytes
        ):
            self._drop_oldest()

    def _note(self, name: str, num_bytes: int, expiry: float) -> None:
        self._entries[name] = _Entry(num_bytes, expiry)
        self._num_bytes += num_bytes

    def _drop_oldest(self) -> None:
        name, entry = self._entries.popitem(last=False)
        self._num_bytes -= entry.num_bytes
        self._delete(name)

    def _find(self, name: str) -> _Entry | None:
        """A file that somebody else keeps, who deletes it too."""
        return None

    @abstractmethod
    def _write(self, name: str, content: bytes) -> None: ...

    @abstractmethod
    def _read(self, name: str) -> bytes | None: ...

    @abstractmethod
    def _delete(self, name: str) -> None: ...


class MemoryImageFiles(ImageFiles):
    """Files that end with the process."""

    def __init__(self, limits: FileLimits, clock: Callable[[], float] = time.time) -> None:
        super().__init__(limits, clock)
        self._contents: dict[str, bytes] = {}

    def _write(self, name: str, content: bytes) -> None:
        self._contents[name] = content

    def _read(self, name: str) -> bytes | None:
        return self._contents.get(name)

    def _delete(self, name: str) -> None:
        self._contents.pop(name, None)


class FolderImageFiles(ImageFiles):
    """Files in a folder, where those of an earlier process are found again.

    Several servers may share the folder, and each sends the files of all. Files that are not named
    as these are left alone.

    Raises:
        OSError: The folder cannot be made or read.
    """

    def __init__(
        self, folder: Path, limits: FileLimits, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(limits, clock)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        states = sorted(((path.stat(), path.name) for path in found), key=lambda s: s[0].st_mtime)
        for state, name in states:
            self._note(name, state.st_size, state.st_mtime + limits.lifetime_s)
        self._make_room()

    def _find(self, name: str) -> _Entry | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            state = (self._folder / name).stat()
        except FileNotFoundError:
            return None
        return _Entry(state.st_size, state.st_mtime + self._limits.lifetime_s)

    def _write(self, name: str, content: bytes) -> None:
        partial = self._folder / f".{name}.partial"
        partial.write_bytes(content)
        partial.replace(self._folder / name)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:  # deleted by someone else
            return None

    def _delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
