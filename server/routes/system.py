"""What operators and tools read: health, readiness, metrics, version, the API's description."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from falcon.asgi import Request, Response

from server.lifecycle import Lifecycle
from server.metrics import Metrics
from server.schema.system import Health as HealthBody
from server.schema.system import ModelHealth, Readiness
from server.schema.system import Version as VersionBody


class Health:
    """Whether the process should live on: 503 as soon as an engine's thread has died."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def on_get(self, req: Request, resp: Response) -> None:
        lifecycle = self._lifecycle
        failed = lifecycle.failed_models
        models = [
            ModelHealth(
                id=model.id,
                kind=model.kind,
                status="error" if model in failed else "ok",
                queue_size=model.worker.num_waiting,
                device=model.worker.device,
            )
            for model in lifecycle.models.models
        ]
        resp.status = 503 if failed else 200
        resp.media = HealthBody(
            status="error" if failed else "draining" if lifecycle.is_draining else "ok",
            models=models,
            model=models[0].id,
            queue_size=models[0].queue_size,
            device=models[0].device,
        )


class Ready:
    """Whether new requests should come here: 503 before the start, while draining, when broken."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def on_get(self, req: Request, resp: Response) -> None:
        lifecycle = self._lifecycle
        resp.status = 200 if lifecycle.is_ready else 503
        if lifecycle.is_ready:
            resp.media = Readiness(status="ready")
        elif lifecycle.failed_models:
            resp.media = Readiness(status="error")
        else:
            resp.media = Readiness(status="draining" if lifecycle.is_draining else "starting")


class MetricsPage:
    """The metrics in the text format that the Accept header asks for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data, resp.content_type = self._metrics.render(req.get_header("Accept") or "")


class Version:
    """The release that answers."""

    def __init__(self, version: str) -> None:
        self._version = version

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = VersionBody(version=self._version)


class DocsPage:
    """The same for people, as HTML; `write` makes the page when it is first asked for."""

    def __init__(self, write: Callable[[], str]) -> None:
        self._page = cache(lambda: write().encode())

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = "text/html; charset=utf-8"
        # Nothing of the page is code, and nothing is to be fetched for it.
        resp.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        resp.data = self._page()


class OpenApi:
    """The description of this API; `describe` makes it when it is first asked for."""

    def __init__(self, describe: Callable[[], dict[str, Any]]) -> None:
        self._encoded = cache(lambda: msgspec.json.encode(describe()))

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = "application/json"
        resp.data = self._encoded()
