"""Which web pages may call: those on this machine, and the origins named in the settings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from falcon.asgi import Request, Response

from server.errors import ApiError

_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
_METHODS = "GET, POST, DELETE, OPTIONS"
_HEADERS = "authorization, content-type, x-request-id"
_EXPOSED = (
    "x-request-id, request-id, openai-processing-ms, retry-after, retry-after-ms, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests"
)
_MAX_AGE_S = "86400"


class CrossOrigin:
    """A Falcon middleware that answers preflights and marks answers that a page may read.

    Args:
        origins: Beside pages on this machine; `*` stands for all.
    """

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin, such as `http://localhost:3000`, may call."""
        return (
            "*" in self._origins
            or origin.lower() in self._origins
            or _LOCAL_ORIGIN.fullmatch(origin) is not None
        )

    async def process_request(self, req: Request, resp: Response) -> None:
        """Mark the answer; a preflight is answered at once, without a key."""
        origin = req.get_header("Origin")
        if origin is None:
            return
        resp.append_header("Vary", "Origin")
        is_preflight = (
            req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method") is not None
        )
        if self.allows(origin):
            resp.set_header("Access-Control-Allow-Origin", origin)
            resp.set_header("Access-Control-Expose-Headers", _EXPOSED)
        elif is_preflight:
            raise ApiError(
                403,
                f"Pages of {origin} may not call this server: start it with --cors-origin {origin}",
                code="origin_not_allowed",
            )
        if is_preflight:
            # What a page asks for may be any header: clients of the API send many of their own.
            asked = req.get_header("Access-Control-Request-Headers")
            resp.set_header("Access-Control-Allow-Methods", _METHODS)
            resp.set_header("Access-Control-Allow-Headers", asked or _HEADERS)
            resp.set_header("Access-Control-Max-Age", _MAX_AGE_S)
            resp.status = 204
            resp.complete = True
