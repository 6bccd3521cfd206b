"""What an export tells while it works; the compiler knows only this, not how it is shown."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Advance(Protocol):
    """Some units of a stage's work are done; `doing` says which part."""

    def __call__(self, units: int, doing: str = "") -> None: ...


class Progress(Protocol):
    """Stages that are entered one after the other."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """A part of the work of `total` units; None where the length is not known."""
        ...
