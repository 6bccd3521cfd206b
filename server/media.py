"""JSON in and out: decoded by msgspec, and never more of a body than the limit allows."""

from __future__ import annotations

from typing import Any

import falcon.media
import msgspec
from falcon.typing import AsyncReadableIO, ReadableIO

from server.errors import ApiError


class JsonHandler(falcon.media.BaseHandler):
    """Falcon's handler for `application/json`.

    Args:
        max_body_size: Bytes; a larger body is a 413 whether it states its length or not.
    """

    def __init__(self, max_body_size: int) -> None:
        self._max_body_size = max_body_size
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode

    def serialize(self, media: object, content_type: str | None = None) -> bytes:
        return self._encode(media)

    async def serialize_async(self, media: object, content_type: str | None = None) -> bytes:
        return self._encode(media)

    def deserialize(
        self, stream: ReadableIO, content_type: str | None, content_length: int | None
    ) -> Any:
        return self._parse(stream.read(self._max_body_size + 1))

    async def deserialize_async(
        self, stream: AsyncReadableIO, content_type: str | None, content_length: int | None
    ) -> Any:
        if content_length is not None and content_length > self._max_body_size:
            raise self._too_large()
        return self._parse(await stream.read(self._max_body_size + 1))

    def _parse(self, body: bytes) -> Any:
        if len(body) > self._max_body_size:
            raise self._too_large()
        if not body:
            raise ApiError(400, "The request has no body; send a JSON object.", code="invalid_json")
        try:
            return self._decode(body)
        except RecursionError:
            raise ApiError(
                400, "The body is not valid JSON: nested too deeply", code="invalid_json"
            ) from None
        except UnicodeDecodeError as error:  # of msgspec before 0.23, which has an error of its own
            raise ApiError(
                400, f"The body is not valid JSON: no UTF-8, {error.reason}", code="invalid_json"
            ) from None

    def _too_large(self) -> ApiError:
        limit = self._max_body_size
        message = f"The request body is larger than this server's limit of {limit} bytes."
        return ApiError(413, message, code="request_too_large")
