"""`/v1/images/files/{name}`: pictures that answers name by URL."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any

from falcon.asgi import Request, Response

from server.errors import ApiError
from server.images.encoding import MEDIA_TYPES
from server.images.files import IMAGE_FILES, ImageFiles

_PURGE_INTERVAL_S = 30.0
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


class ImageFileRoute:
    """Sends files; who knows a name needs no key, as nobody can guess one."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        # Read in a thread, as it may lie on a disk.
        file = await asyncio.to_thread(self._files.get, name)
        if file is None:
            raise ApiError(
                404,
                "There is no such picture; it was never there, or its time is over.",
                code="not_found",
            )
        resp.content_type = MEDIA_TYPES[name.rpartition(".")[2]]
        resp.set_headers(
            {
                "Cache-Control": f"private, max-age={int(file.seconds_left)}, immutable",
                "X-Content-Type-Options": "nosniff",
            }
        )
        resp.data = file.content

    async def on_head(self, req: Request, resp: Response, name: str) -> None:
        """The same without the picture, which the framework leaves out."""
        await self.on_get(req, resp, name)


class ImageFilePurge:
    """A Falcon middleware that deletes expired files while the app runs."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files
        self._task: asyncio.Task[None] | None = None

    async def process_startup(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        self._task = asyncio.create_task(self._purge())

    async def process_shutdown(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _purge(self) -> None:
        while True:
            await asyncio.sleep(_PURGE_INTERVAL_S)
            await asyncio.to_thread(self._files.purge)


def files_url(req: Request) -> str:
    """Where the client of a request finds files, by the name under which it found this server.

    Headers of proxies count as far as the server that runs the app lets them; a Host header that
    is no host gives way to the server's own address.
    """
    host = req.get_header("Host") or ""
    if not _HOST.fullmatch(host):
        address = req.scope.get("server") or ("localhost", None)
        name_part = f"[{address[0]}]" if ":" in address[0] else address[0]
        host = name_part if address[1] is None else f"{name_part}:{address[1]}"
    return f"{req.scheme}://{host}{req.root_path}{IMAGE_FILES}"
