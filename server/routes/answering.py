"""What all answers share: they come whole or streamed, and clients may leave before the end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, Self, TypeVar

import msgspec
from falcon.asgi import Request, Response

from server.answer import Delta
from server.errors import ApiError, is_unexpected, to_api_error
from server.observe import RequestRecord
from server.registry import ServedModel

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
DeltaT = TypeVar("DeltaT")
WorkT = TypeVar("WorkT", bound="Work[Any]")
WorkT_contra = TypeVar("WorkT_contra", bound="Work[Any]", contravariant=True)

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = "text/event-stream; charset=utf-8"
# Keeps proxies from collecting a stream's events.
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

# A body of so many bytes is rendered and tokenized off the event loop: it takes milliseconds.
_LARGE_BODY = 65_536

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class AnswerIdentity:
    """What a whole answer, or every chunk of a streamed one, says of itself."""

    id: str
    created: int  # seconds since the epoch
    model: str  # as the client named it
    system_fingerprint: str

    @classmethod
    def new(cls, prefix: str, name: str, model: ServedModel) -> AnswerIdentity:
        return cls(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), name, fingerprint(model))


def fingerprint(model: ServedModel) -> str:
    """Changes with the engine's files, on which the answer to a seed depends."""
    files = model.folder.manifest.files
    digest = hashlib.sha256("".join(files[name].sha256 for name in sorted(files)).encode())
    return f"fp_{digest.hexdigest()[:12]}"


class Work(Protocol[DeltaT]):
    """A request in the works: an async iterator over what each step brought, None for a tick.

    Leaving its `with` block gives up what is not finished.
    """

    @property
    def is_complete(self) -> bool: ...

    @property
    def finish_reason(self) -> str: ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> list[DeltaT] | None: ...


class AnswerWriter(Protocol[WorkT_contra, DeltaT]):
    """Turns the deltas of a request into one kind of answer, streamed or whole."""

    def open(self) -> bytes:
        """What begins a stream, before anything was computed."""
        ...

    def write(self, deltas: list[DeltaT]) -> bytes:
        """The events for what one step brought, none for nothing."""
        ...

    def close(self, work: WorkT_contra, /) -> bytes:
        """What ends a stream after everything is complete."""
        ...

    def fail(self, error: ApiError) -> bytes:
        """What ends a stream that breaks off."""
        ...

    def whole(self, work: WorkT_contra, deltas: list[DeltaT], /) -> msgspec.Struct:
        """The answer to a request that is not streamed, from all deltas."""
        ...


class CompletionEvents:
    """How the streams of completions begin and end."""

    def open(self) -> bytes:
        return b""

    def fail(self, error: ApiError) -> bytes:
        return event(error.response()) + DONE


def by_choice(deltas: list[Delta]) -> list[tuple[int, list[Delta]]]:
    """The deltas of each choice, in the order of the choices."""
    choices: dict[int, list[Delta]] = {}
    for delta in deltas:
        choices.setdefault(delta.choice, []).append(delta)
    return sorted(choices.items())


class EventStream:
    """A response body of server-sent events, closed by Falcon at the end of the response."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._events

    def __anext__(self) -> Awaitable[bytes]:
        return self._events.__anext__()

    async def close(self) -> None:
        await self._events.aclose()


def event(payload: object, name: str | None = None) -> bytes:
    """One server-sent event of a JSON object, with a name where its kind of stream has them."""
    head = b"" if name is None else b"event: %b\n" % name.encode()
    return b"%bdata: %b\n\n" % (head, encode(payload))


async def respond(
    req: Request,
    resp: Response,
    work: WorkT,
    writer: AnswerWriter[WorkT, Any],
    *,
    streamed: bool,
) -> None:
    """Send the answer; a streamed one begins when the responder has returned.

    Raises:
        EngineryError: The engine failed before the end.
        ApiError: The client has left, or the answer took too long.
    """
    if streamed:
        resp.content_type = EVENT_STREAM
        resp.set_headers(STREAM_HEADERS)
        resp.stream = EventStream(_events(req, work, writer))
    else:
        resp.data = encode(writer.whole(work, await collect(req, work)))


async def _events(
    req: Request, work: WorkT, writer: AnswerWriter[WorkT, Any]
) -> AsyncGenerator[bytes, None]:
    """The events of a streamed answer; a failure travels as one, as the status is long sent."""
    record: RequestRecord = req.context.record
    try:
        with work, _closed_when_gone(req, work):
            if chunk := writer.open():
                yield chunk
            async for deltas in work:
                if deltas is None:
                    yield PING
                elif chunk := writer.write(deltas):
                    yield chunk
        if work.is_complete and (chunk := writer.close(work)):
            yield chunk
    except Exception as error:
        if is_unexpected(error):
            logger.exception("request %s broke off", record.request_id)
        record.finished("error")
        yield writer.fail(to_api_error(error))
    finally:
        record.finished(work.finish_reason)


async def collect(req: Request, work: Work[DeltaT]) -> list[DeltaT]:
    """All deltas of a request, in the order in which they came.

    Raises:
        ApiError: The client has left.
    """
    record: RequestRecord = req.context.record
    collected: list[DeltaT] = []
    try:
        with work, _closed_when_gone(req, work):
            async for deltas in work:
                collected.extend(deltas or ())
    except Exception:
        record.finished("error")
        raise
    finally:
        record.finished(work.finish_reason)
    if not work.is_complete:
        raise ApiError(499, "The client closed the connection.", code="client_closed_request")
    return collected


async def off_loop(req: Request, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function of the text layer, in another thread if the request is large."""
    if (req.content_length or _LARGE_BODY) < _LARGE_BODY:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


@contextlib.contextmanager
def _closed_when_gone(req: Request, work: Work[Any]) -> Iterator[None]:
    # NOTE: Falcon watches for a disconnect only while it sends server-sent events of its own, and
    # gives responders no public access to `receive`.
    watcher = asyncio.create_task(_watch(req._receive, work))
    try:
        yield
    finally:
        watcher.cancel()


async def _watch(receive: Callable[[], Any], work: Work[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    work.close()
