"""What an export tells while it works; the compiler knows only this, not how it is shown."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Stages that are entered one after the other, each with units of work."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[None]:
        """A part of the work; `total` is None where its length is not known."""
        ...

    def advance(self, units: int, doing: str = "") -> None:
        """Some of the stage's work is done; `doing` says which part."""
        ...
