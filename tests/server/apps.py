"""Apps around scripted engines, to be called without a network."""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
from falcon import testing

from server.app import App, create_app
from server.config import ServerConfig
from server.lifecycle import Lifecycle
from server.registry import ModelRegistry, ServedModel
from server.text.processor import TextProcessor
from tests.schemas.exchanges import check_exchange
from tests.schemas.recording import CheckedApp
from tests.server.fakes import ScriptedEngine, scripted_engine, served_model, write_text_files

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


@functools.cache
def tiny_text() -> TextProcessor:
    """The text layer of the tiny checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        return TextProcessor.load(write_text_files(Path(folder)))


def tiny_engine(reply: str = "Hello you", **options: int) -> ScriptedEngine:
    return scripted_engine(tiny_text(), reply, **options)


def tiny_model(engine: ScriptedEngine | None = None, **settings: Any) -> ServedModel:
    return served_model(tiny_text(), engine or tiny_engine(), **settings)


def http_client(app: App) -> httpx.AsyncClient:
    """A client that calls the app without a network, whose start and stop are the caller's."""
    transport = httpx.ASGITransport(CheckedApp(app))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def chat(*bodies: dict[str, Any], models: Iterable[ServedModel] = ()) -> list[httpx.Response]:
    """Send chat requests one after the other to one app whose engines run.

    Falcon's test client cannot: it hangs up as soon as it has sent a request.
    """

    async def converse() -> list[httpx.Response]:
        registry = ModelRegistry([*models] or [tiny_model()])
        lifecycle = Lifecycle(registry, drain_timeout_s=10)
        await lifecycle.start()
        try:
            async with http_client(create_app(registry, ServerConfig(), (), lifecycle)) as client:
                return [await client.post("/v1/chat/completions", json=body) for body in bodies]
        finally:
            await lifecycle.stop()

    return asyncio.run(converse())


class CheckedClient(testing.TestClient):
    """Falcon's client, whose exchanges are held against the schemas."""

    def simulate_request(self, *args: Any, **kwargs: Any) -> Any:
        result = super().simulate_request(*args, **kwargs)
        method, path = [*args, "GET", "/"][:2] if args else ("GET", "/")
        method, path = kwargs.get("method", method), kwargs.get("path", path)
        if result.content and method not in ("HEAD", "OPTIONS"):
            content_type = result.headers.get("content-type", "")
            body = json.dumps(kwargs["json"]).encode() if "json" in kwargs else b""
            check_exchange(method, path, body, result.status_code, content_type, result.content)
        return result


def client(
    *models: ServedModel,
    api_keys: Iterable[str] = (),
    accept_any_model: bool = False,
    **settings: Any,
) -> testing.TestClient:
    """A client of an app with `settings`; without models it serves one named `tiny`."""
    registry = ModelRegistry(models or [tiny_model()], accept_any_model=accept_any_model)
    return CheckedClient(create_app(registry, ServerConfig(**settings), api_keys))
