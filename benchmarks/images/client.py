"""One request to `/v1/images/generations`, timed as its pictures arrive."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from benchmarks.client import error_kind, status_kind

PATH = "/images/generations"
_PARTIAL = "image_generation.partial_image"
_COMPLETED = "image_generation.completed"
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")  # PNG, JPEG, WebP


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequestOptions:
    """What every request of a run has in common; None leaves a field to the server."""

    model: str
    size: str
    n: int = 1
    partial_images: int | None = None  # None: not streamed
    num_inference_steps: int | None = None

    def body(self, prompt: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt,
            "size": self.size,
            "n": self.n,
        }
        if self.partial_images is not None:
            body |= {"stream": True, "partial_images": self.partial_images}
        if self.num_inference_steps is not None:
            body["num_inference_steps"] = self.num_inference_steps
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """One finished request; times in seconds, `started_s` since the run began."""

    started_s: float
    latency_s: float  # until the last byte
    first_partial_s: float | None  # until the first partial image
    num_images: int  # finished pictures
    error: str | None = None


class ImageClient:
    """Sends prompts and times the answers; failures become results, never exceptions."""

    def __init__(self, http: httpx.AsyncClient, options: ImageRequestOptions) -> None:
        self._http = http
        self._options = options
        self._origin = time.perf_counter()

    async def send(self, prompt: str) -> ImageResult:
        """Send one prompt."""
        answer = _Answer(time.perf_counter())
        error = None
        try:
            await self._exchange(prompt, answer)
        except httpx.HTTPError as failure:
            error = error_kind(failure)
        except msgspec.DecodeError:
            error = "not the JSON of an OpenAI response"
        except _AnswerError as failure:
            error = str(failure)
        return ImageResult(
            started_s=answer.sent_at - self._origin,
            latency_s=time.perf_counter() - answer.sent_at,
            first_partial_s=answer.first_partial_s,
            num_images=answer.num_images,
            error=error,
        )

    async def _exchange(self, prompt: str, answer: _Answer) -> None:
        options = self._options
        async with self._http.stream("POST", PATH, json=options.body(prompt)) as response:
            if response.status_code != 200:
                raise _AnswerError(status_kind(response.status_code, await response.aread()))
            if options.partial_images is None:
                answer.add_whole(await response.aread())
            else:
                await _read_events(response.aiter_lines(), answer)
        if answer.num_images != options.n:
            raise _AnswerError(f"{answer.num_images} of {options.n} pictures came")


class _AnswerError(Exception):
    """The server answered, but not with pictures; the message is the kind of error."""


class _Answer:
    """An answer while it arrives."""

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.first_partial_s: float | None = None
        self.num_images = 0

    def add_whole(self, payload: bytes) -> None:
        for image in msgspec.json.decode(payload, type=_Body).data:
            self._add_image(image.b64_json)

    def add_event(self, payload: str) -> None:
        event = msgspec.json.decode(payload, type=_Event)
        if event.error is not None or event.type == "error":
            raise _AnswerError("error in the stream")
        if event.type == _PARTIAL and self.first_partial_s is None:
            self.first_partial_s = time.perf_counter() - self.sent_at
        if event.type == _COMPLETED:
            self._add_image(event.b64_json)

    def _add_image(self, encoded: str | None) -> None:
        try:
            picture = base64.b64decode(encoded or "", validate=True)
        except binascii.Error:
            picture = b""
        if not picture.startswith(_SIGNATURES):
            raise _AnswerError("not a picture")
        self.num_images += 1


async def _read_events(lines: AsyncIterator[str], answer: _Answer) -> None:
    """Until the end of the stream, which OpenAI's image streams do not announce."""
    async for line in lines:
        field, _, value = line.partition(":")
        if field == "data" and value.strip() != "[DONE]":
            answer.add_event(value.strip())


class _Image(msgspec.Struct):
    b64_json: str | None = None


class _Body(msgspec.Struct):
    data: list[_Image] = []


class _Event(msgspec.Struct):
    type: str = ""
    b64_json: str | None = None
    error: Any = None
