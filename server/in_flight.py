"""What all requests on their way through a worker have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Self, TypeVar

from server.observe import RequestRecord
from server.output_stream import OutputStream

OutputT = TypeVar("OutputT")
NewsT = TypeVar("NewsT")


class InFlight(ABC, Generic[OutputT, NewsT]):
    """An async iterator over lists of news; None is a tick without any.

    Leaving the `with` block, or a client that leaves, gives up what is not finished.

    Args:
        stream: Of the request's outputs.
        record: Of the request.
    """

    def __init__(self, stream: OutputStream[OutputT], record: RequestRecord) -> None:
        self._stream = stream
        self._record = record

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether all of it is; the client has left if the iteration ends before."""

    @abstractmethod
    async def __anext__(self) -> list[NewsT] | None: ...

    def __aiter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is not finished."""
        self._stream.close()

    def _note_start(self) -> None:
        """Record how long it waited, once that is known."""
        if self._stream.queue_time_s is not None:
            self._record.scheduled(self._stream.queue_time_s)
