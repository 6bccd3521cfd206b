"""An ASGI app around another, which holds every exchange against the schemas once it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.schemas.exchanges import SchemaViolation, check_exchange

LARGEST = 1 << 22  # bytes of a body; larger ones are not looked at


def raise_violation(violation: SchemaViolation) -> None:
    raise violation


class CheckedApp:
    """Passes everything on as it comes; `report` is told what did not fit."""

    def __init__(
        self, app: Any, report: Callable[[SchemaViolation], None] = raise_violation
    ) -> None:
        self._app = app
        self._report = report

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, answer = bytearray(), bytearray()
        start: dict[str, Any] = {}

        async def receive_and_keep() -> Any:
            message = await receive()
            if len(request) <= LARGEST:
                request.extend(message.get("body", b""))
            return message

        async def send_and_keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif len(answer) <= LARGEST:
                answer.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, receive_and_keep, send_and_keep)
        if start and max(len(request), len(answer)) <= LARGEST:
            self._check(scope, bytes(request), start, bytes(answer))

    def _check(self, scope: Any, request: bytes, start: dict[str, Any], answer: bytes) -> None:
        headers = {bytes(name).lower(): bytes(value) for name, value in start["headers"]}
        content_type = headers.get(b"content-type", b"").decode()
        is_empty = scope["method"] in ("HEAD", "OPTIONS") or not answer
        if is_empty:
            return
        try:
            check_exchange(
                scope["method"], scope["path"], request, start["status"], content_type, answer
            )
        except SchemaViolation as violation:
            self._report(violation)
