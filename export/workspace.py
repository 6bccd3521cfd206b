"""A hidden folder beside the engine to be, in which it is built; nothing of a failed build stays.

The folder is locked while its process lives, so that the next export tells a build that is still
running from what a killed one left behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import OutputError

_PARTIAL = ".partial"
_REPLACED = ".replaced"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def workspace(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder to build in; it becomes `target` where the body ends without an error.

    Args:
        target: The engine's folder.
        force: Whether an engine that is there already may be replaced.

    Raises:
        OutputError: The target is taken, another export is writing it, or the disk is full.
    """
    created = _missing_parents(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}{_PARTIAL}")
    lock = _open_partial(target, partial, force)
    try:
        yield partial
        _publish(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in created:
            if not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise OutputError(f"there is not enough space for {target}: {error.strerror}") from None
        raise
    finally:
        os.close(lock)


def _open_partial(target: Path, partial: Path, force: bool) -> int:
    """Clean up, create the partial folder and lock it; the descriptor holds the lock."""
    with _locked(target.parent):
        _remove_leftovers(target.parent)
        if partial.exists():
            raise OutputError(f"another export is writing {target} at this moment")
        if target.exists() and not force:
            raise OutputError(f"{target} exists already: choose another --name, or add --force")
        if target.exists() and not (target / "engine.json").is_file():
            raise OutputError(f"{target} exists and is not an engine, so it is not replaced")
        partial.mkdir()
        lock = os.open(partial, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock


def _publish(partial: Path, target: Path) -> None:
    replaced = target.with_name(f".{target.name}{_REPLACED}")
    with _locked(target.parent):
        if target.exists():
            target.rename(replaced)
        partial.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(output: Path) -> None:
    """Remove what killed exports left, and give an engine its place back."""
    for replaced in output.glob(f".*{_REPLACED}"):
        target = output / replaced.name[1 : -len(_REPLACED)]
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:  # killed between the two renames of `_publish`
            replaced.rename(target)
    for partial in output.glob(f".*{_PARTIAL}"):
        if not _is_locked(partial):
            shutil.rmtree(partial, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other exports out of an output folder for a moment."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _missing_parents(target: Path) -> list[Path]:
    """The folders that have to be made for the target, innermost first."""
    return [folder for folder in target.parents if not folder.exists()]
