"""Is the server ready, draining or broken: one object that routes and the process both ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from falcon.asgi import Request, Response

from server.errors import ServerUnavailable
from server.images.files import IMAGE_FILES
from server.registry import ModelRegistry, ServedModel

_OPEN_WHILE_DRAINING = frozenset({"/health", "/ready", "/metrics"})


class Lifecycle:
    """Starts and stops the engines' threads; a Falcon middleware.

    While it drains, requests that run go on and new ones are refused.
    """

    def __init__(self, models: ModelRegistry, drain_timeout_s: float) -> None:
        self.models = models
        self.is_draining = False
        self._drain_timeout_s = drain_timeout_s
        self._is_started = False

    @property
    def failed_models(self) -> list[ServedModel]:
        """Those whose engine stopped by itself."""
        if not self._is_started:
            return []
        return [model for model in self.models.models if not model.worker.is_alive]

    @property
    def is_ready(self) -> bool:
        return self._is_started and not self.is_draining and not self.failed_models

    async def start(self) -> None:
        """Start every engine's thread; can be called again after `stop`."""
        for model in self.models.models:
            model.worker.start()
        self.is_draining = False
        self._is_started = True

    async def stop(self, timeout_s: float | None = None) -> None:
        """End every engine's thread, after what runs or, if that takes longer, `timeout_s`."""
        if not self._is_started:
            return
        self._is_started = False
        timeout_s = self._drain_timeout_s if timeout_s is None else timeout_s
        await asyncio.gather(*(model.worker.stop(timeout_s) for model in self.models.models))

    async def process_startup(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        await self.start()

    async def process_shutdown(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        await self.stop()

    async def process_request(self, req: Request, resp: Response) -> None:
        """Refuse new work while draining, so that a router sends it elsewhere."""
        is_open = req.path in _OPEN_WHILE_DRAINING or req.path.startswith(IMAGE_FILES)
        if self.is_draining and not is_open:
            resp.set_header("Connection", "close")
            raise ServerUnavailable("The server is shutting down.", code="shutting_down")
