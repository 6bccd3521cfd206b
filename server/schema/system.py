"""What operators read: health, readiness, version."""

from __future__ import annotations

from typing import Literal

import msgspec


class ModelHealth(msgspec.Struct, kw_only=True):
    """One engine; `queue_size` counts the requests that wait for it."""

    id: str
    kind: str
    status: Literal["ok", "error"]
    queue_size: int
    device: str


class Health(msgspec.Struct, kw_only=True):
    """`error` if an engine has stopped; `model`, `queue_size` and `device` are the first's."""

    status: Literal["ok", "draining", "error"]
    models: list[ModelHealth]
    model: str
    queue_size: int
    device: str


class Readiness(msgspec.Struct, kw_only=True):
    """Whether a router should send requests here."""

    status: Literal["ready", "starting", "draining", "error"]


class Version(msgspec.Struct, kw_only=True):
    """The release of Enginery that answers."""

    version: str
