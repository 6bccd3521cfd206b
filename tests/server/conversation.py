"""Requests to an app around one scripted engine, and what came back in the terms of the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from server.app import App, create_app
from server.config import ServerConfig
from server.lifecycle import Lifecycle
from server.registry import ModelRegistry, ServedModel
from tests.server.apps import http_client, tiny_model

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"


def with_app(model: ServedModel, scenario: Callable[[App], Awaitable[Any]]) -> Any:
    """Run a scenario with an app whose engine runs."""

    async def run() -> Any:
        models = ModelRegistry([model])
        lifecycle = Lifecycle(models, drain_timeout_s=0)
        await lifecycle.start()
        try:
            return await scenario(create_app(models, ServerConfig(), (), lifecycle))
        finally:
            model.worker._engine.run()
            await lifecycle.stop()

    return asyncio.run(run())


def post(path: str, *bodies: dict[str, Any], model: ServedModel | None = None) -> Any:
    """The response to each body, sent one after the other; one body, one response."""

    async def scenario(app: App) -> list[httpx.Response]:
        async with http_client(app) as client:
            return [await client.post(path, json={"model": "tiny"} | body) for body in bodies]

    responses = with_app(model or tiny_model(), scenario)
    return responses if len(bodies) > 1 else responses[0]


def complete(body: dict[str, Any], model: ServedModel | None = None) -> dict[str, Any]:
    """The answer to a text completion."""
    response = post(COMPLETIONS_PATH, body, model=model)
    assert response.status_code == 200, response.text
    return response.json()


def converse(body: dict[str, Any], model: ServedModel | None = None) -> dict[str, Any]:
    """The answer to a chat; without messages the user says hi."""
    response = post(CHAT_PATH, said(body), model=model)
    assert response.status_code == 200, response.text
    return response.json()


def said(body: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}]} | body


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON events of a stream, which must end with `[DONE]`."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = response.text.split("\n\n")
    assert end == ""
    assert events.pop() == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events if event != ": ping"]


def stream(path: str, body: dict[str, Any], model: ServedModel | None = None) -> list[Any]:
    """The chunks of a streamed answer."""
    return chunks(post(path, body | {"stream": True}, model=model))


def joined(events: list[dict[str, Any]], index: int = 0) -> str:
    """The text that the chunks of one choice add up to."""
    text = ""
    for event in events:
        for choice in event["choices"]:
            if choice["index"] == index:
                text += choice["delta"].get("content", "") if "delta" in choice else choice["text"]
    return text
