"""The outputs of one request on their way from a worker to whoever awaits them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Generic, Self, TypeVar

from server.errors import ApiError

OutputT = TypeVar("OutputT")


class OutputStream(Generic[OutputT]):
    """An async iterator over lists of step outputs, which ends when all jobs have.

    An item holds all that came since the last one, so a slow reader gets longer lists. None is a
    tick: about a second went by without news. Leaving the `with` block (or `close`) gives up the
    jobs that are not finished. Everything here happens on one event loop.

    Args:
        job_ids: The sequences or pictures of the request.
        abort: Is told which of them were given up.
        timeout_s: When to fail a request that is still unfinished; checked with each tick.
    """

    def __init__(
        self,
        job_ids: Iterable[int],
        abort: Callable[[tuple[int, ...]], None],
        timeout_s: float | None = None,
    ) -> None:
        self._unfinished = set(job_ids)
        self._abort = abort
        self._timeout_s = timeout_s
        self._start = time.monotonic()
        self.queue_time_s: float | None = None  # until the first job was scheduled
        self._outputs: list[OutputT] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_quiet = False
        self._has_tick = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[OutputT] | None:
        """The next outputs, or None for a tick.

        Raises:
            EngineryError: The engine refused the request or failed.
            ApiError: The deadline has passed, or the server is shutting down.
        """
        while not self._outputs:
            if self._error is not None:
                raise self._error
            if not self._unfinished:
                raise StopAsyncIteration
            if self._has_tick:
                self._has_tick = False
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        outputs, self._outputs = self._outputs, []
        return outputs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def abort(self, job_id: int) -> None:
        """Give up one job, for example because a text is complete."""
        if job_id in self._unfinished:
            self._unfinished.discard(job_id)
            self._abort((job_id,))

    def close(self) -> None:
        """Give up what is not finished; whoever awaits the stream sees its end."""
        unfinished, self._unfinished = tuple(self._unfinished), set()
        if unfinished:
            self._abort(unfinished)
        self._outputs = []
        self._wake()

    def push(self, output: OutputT, finished_id: int | None = None) -> None:
        """Take in what a step did and which job it finished; called by the worker."""
        self._outputs.append(output)
        self._is_quiet = False
        if finished_id is not None:
            self._unfinished.discard(finished_id)
        self._wake()

    def scheduled(self, time_s: float) -> None:
        """Note when the first job was scheduled; later calls change nothing."""
        if self.queue_time_s is None:
            self.queue_time_s = time_s - self._start

    def fail(self, error: Exception) -> None:
        """End with an error, after what has come so far; called by the worker."""
        outputs = self._outputs
        self._error = error
        self.close()
        self._outputs = outputs

    def tick(self) -> None:
        """About a second has passed; called by the worker."""
        timeout_s = self._timeout_s
        if timeout_s is not None and time.monotonic() - self._start > timeout_s:
            message = f"The answer was not finished after {timeout_s:g} s, this server's limit."
            self.fail(ApiError(504, message, code="timeout"))
        elif self._is_quiet:
            self._has_tick = True
            self._wake()
        self._is_quiet = True

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
