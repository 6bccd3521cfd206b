"""`multipart/form-data`: files and text fields, never more of them than the limit allows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import cast

import falcon
from falcon.asgi import BoundedStream, Request
from falcon.asgi.multipart import BodyPart, MultipartForm
from falcon.media.multipart import MultipartFormHandler, MultipartParseError
from falcon.typing import AsyncReadableIO

from engines.errors import InvalidRequest
from server.errors import ApiError
from server.images.uploads import Upload

_MAX_TEXT = 256 * 1024  # bytes of a text field
_MAX_PARTS = 64
_MAX_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Form:
    """What a form held: its text fields, and its files by field."""

    texts: dict[str, str]
    files: dict[str, Upload]


class FormReader:
    """Reads the forms of uploads.

    Args:
        max_size: Bytes of a form with all its files; a larger one is a 413.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._handler = MultipartFormHandler()
        # One more, so that the sentence about it is ours.
        self._handler.parse_options.max_body_part_count = _MAX_PARTS + 1

    async def read(self, req: Request, files: Collection[str]) -> Form:
        """Read a request's form.

        Args:
            req: Its body has not been read.
            files: Fields that may hold a file; `image[]` is another name of `image`.

        Raises:
            ApiError: It is not a form, is damaged, or too large.
            InvalidRequest: A field is there twice, or holds what it should not.
        """
        content_type = req.content_type or ""
        if content_type.partition(";")[0].strip().lower() != falcon.MEDIA_MULTIPART:
            raise ApiError(
                415,
                "The body is of a type that is not supported; send multipart/form-data.",
                code="unsupported_media_type",
            )
        if req.content_length is not None and req.content_length > self._max_size:
            raise self._too_large()
        form = Form({}, {})
        try:
            parts: MultipartForm = await self._handler.deserialize_async(
                cast(AsyncReadableIO, self._limited(req.stream)), content_type, None
            )
            async for part in parts:
                await self._take(part, form, files)
        except MultipartParseError as error:
            raise _broken(error.description) from None
        except falcon.HTTPInvalidHeader:
            raise _broken("its Content-Type names no usable boundary") from None
        except UnicodeDecodeError:
            raise _broken("the name of a part is not UTF-8") from None
        return form

    async def _take(self, part: BodyPart, form: Form, files: Collection[str]) -> None:
        name = (part.name or "").removesuffix("[]")
        if not name:
            raise _broken("a part has no name")
        if len(form.texts) + len(form.files) >= _MAX_PARTS:
            raise _broken(f"it has more than {_MAX_PARTS} parts")
        if name in form.files:
            raise InvalidRequest(
                f"{name} is there more than once, but this server takes one file for it", name
            )
        if name in form.texts:
            raise InvalidRequest(f"{name} is there more than once in the form", name)
        if name in files:
            form.files[name] = Upload(name, await part.stream.read())
        elif part.filename is not None:
            expected = " and ".join(files)
            raise InvalidRequest(
                f"{_shown(name)} is a file, but the only files of this route are {expected}", name
            )
        else:
            form.texts[name] = await _text(part, name)

    async def _limited(self, stream: BoundedStream) -> AsyncIterator[bytes]:
        """The body, which need not have said how long it is."""
        num_bytes = 0
        async for chunk in stream:
            num_bytes += len(chunk)
            if num_bytes > self._max_size:
                raise self._too_large()
            yield chunk

    def _too_large(self) -> ApiError:
        message = f"The form is larger than this server's limit of {self._max_size} bytes."
        return ApiError(413, message, code="request_too_large")


async def _text(part: BodyPart, name: str) -> str:
    content = await part.stream.read(_MAX_TEXT + 1)
    if len(content) > _MAX_TEXT:
        raise InvalidRequest(
            f"{_shown(name)} is longer than {_MAX_TEXT} bytes, the limit of a text field", name
        )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{_shown(name)} is not UTF-8 text", name) from None


def _broken(problem: str | None) -> ApiError:
    return ApiError(
        400, f"The body is not a valid multipart form: {problem}.", code="invalid_multipart"
    )


def _shown(name: str) -> str:
    return name if len(name) <= _MAX_SHOWN else f"{name[: _MAX_SHOWN - 3]}..."
