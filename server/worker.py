"""One thread owns one engine; requests on the event loop add jobs and await their outputs.

Commands go in through a queue, and all outputs of a step come back in one call to the event loop.
The engine never waits for a client: one that is slow gets what it missed in larger pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from engines.errors import InvalidRequest, QueueFull, RequestError, RunFailed
from server.engine import Engine
from server.errors import ServerUnavailable
from server.output_stream import OutputStream

logger = logging.getLogger(__name__)

EngineT = TypeVar("EngineT", bound=Engine[Any, Any])
JobT = TypeVar("JobT")
OutputT = TypeVar("OutputT")

TICK_S = 1.0
JOIN_TIMEOUT_S = 10.0  # a step is far shorter, unless the runtime hangs


@dataclass(frozen=True, slots=True)
class Addition(Generic[JobT, OutputT]):
    """The jobs of one request on their way to the engine."""

    jobs: tuple[JobT, ...]
    stream: OutputStream[OutputT]


@dataclass(frozen=True, slots=True)
class _Abort:
    job_ids: tuple[int, ...]


class EngineWorker(ABC, Generic[EngineT, JobT, OutputT]):
    """Runs an engine for the requests of one event loop; all methods are called on that loop.

    A job is one sequence or one picture: the kinds of engines say what theirs are.

    Args:
        engine: Stepped by the worker's thread alone, from `start` to `stop`.
        max_num_running: Jobs that the engine runs at a time.
        name: The model's name, for messages and the thread.
        max_queue_size: Jobs that may wait beyond those.
        request_timeout_s: Seconds after which a request that is not finished is given up.
    """

    _JOBS = "jobs"  # what clients call them
    _ARE_RUN = "are being run"

    def __init__(
        self,
        engine: EngineT,
        max_num_running: int,
        *,
        name: str,
        max_queue_size: int,
        request_timeout_s: float | None,
    ) -> None:
        self.name = name
        self.failure: str | None = None  # why the engine stopped, if it did by itself
        self._engine = engine
        self._max_num_running = max_num_running
        self._max_num_jobs = max_num_running + max_queue_size
        self._request_timeout_s = request_timeout_s
        self._job_ids = itertools.count()
        self._streams: dict[int, OutputStream[OutputT]] = {}  # by the id of each unfinished job
        self._commands: SimpleQueue[Addition[JobT, OutputT] | _Abort | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._ticker: asyncio.TimerHandle | None = None

    @staticmethod
    @abstractmethod
    def job_id(job: JobT) -> int:
        """The id of a job, one of `new_ids`."""

    @staticmethod
    @abstractmethod
    def output_id(output: OutputT) -> int:
        """The id of the job that an output belongs to."""

    @staticmethod
    @abstractmethod
    def is_last(output: OutputT) -> bool:
        """Whether an output is the last of its job."""

    @property
    def device(self) -> str:
        return self._engine.device

    @property
    def is_alive(self) -> bool:
        """Whether requests are being worked on; False before `start` and after a failure."""
        thread = self._thread
        return self.failure is None and thread is not None and thread.is_alive()

    @property
    def max_num_jobs(self) -> int:
        """Unfinished jobs, at most."""
        return self._max_num_jobs

    @property
    def num_running(self) -> int:
        """Unfinished jobs, as far as the engine runs so many at a time."""
        return min(len(self._streams), self._max_num_running)

    @property
    def num_waiting(self) -> int:
        """Unfinished jobs beyond those."""
        return len(self._streams) - self.num_running

    def start(self) -> None:
        """Start the thread; can be called again after `stop`."""
        self._loop = asyncio.get_running_loop()
        self._commands = SimpleQueue()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._thread = threading.Thread(target=self._run, name=f"engine-{self.name}", daemon=True)
        self._thread.start()

    async def stop(self, timeout_s: float = 30.0) -> None:
        """Refuse new requests, let those that run finish, and end the thread.

        Requests that are not finished after `timeout_s` seconds fail with `ServerUnavailable`.
        """
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        self._fail_all(ServerUnavailable("The server is shutting down."))
        self._commands.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, JOIN_TIMEOUT_S)
            if self._thread.is_alive():
                logger.warning("the engine of %r is still in a step and is left to it", self.name)
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def close(self) -> None:
        """Release the engine, after `stop`."""
        self._engine.close()

    def new_ids(self, count: int) -> list[int]:
        """Ids for jobs that are to be run; later ones are larger."""
        return list(itertools.islice(self._job_ids, count))

    def run(self, jobs: Many[JobT]) -> OutputStream[OutputT]:
        """Queue the jobs of one request; their outputs come out of the returned stream.

        Close the stream (it is a context manager) to give up what is not finished.

        Raises:
            QueueFull: As many jobs wait as the queue holds.
            InvalidRequest: These alone are more than the queue holds.
            ServerUnavailable: The server is shutting down, or the engine has stopped.
        """
        if not self.is_alive or self._is_draining:
            raise ServerUnavailable(
                "The server is shutting down."
                if self._is_draining
                else f"The engine of {self.name!r} has stopped."
            )
        self._check_room(len(jobs))
        job_ids = [self.job_id(job) for job in jobs]
        stream: OutputStream[OutputT] = OutputStream(job_ids, self._abort, self._request_timeout_s)
        self._streams.update((job_id, stream) for job_id in job_ids)
        self._idle.clear()
        self._commands.put(Addition(tuple(jobs), stream))
        if self._ticker is None and self._loop is not None:
            self._ticker = self._loop.call_later(TICK_S, self._tick)
        return stream

    def _check_room(self, count: int) -> None:
        limit = self._max_num_jobs
        if count > limit:
            raise InvalidRequest(
                f"the request asks for {count} {self._JOBS}, but this server holds {limit} "
                "at a time",
                "n",
            )
        if len(self._streams) + count > limit:
            raise QueueFull(
                f"the queue of {self.name!r} is full: {self.num_waiting} {self._JOBS} wait and "
                f"{self.num_running} {self._ARE_RUN}, try again later"
            )

    def _forget(self, job_ids: tuple[int, ...]) -> None:
        for job_id in job_ids:
            self._streams.pop(job_id, None)
        if not self._streams:
            self._idle.set()

    def _abort(self, job_ids: tuple[int, ...]) -> None:
        self._forget(job_ids)
        self._commands.put(_Abort(job_ids))

    def _tick(self) -> None:
        """Once a second while there is work: clients may have left, deadlines may have passed."""
        for stream in set(self._streams.values()):
            stream.tick()
        self._ticker = None
        if self._streams and self._loop is not None:
            self._ticker = self._loop.call_later(TICK_S, self._tick)

    def _deliver(self, outputs: list[OutputT], step_start: float) -> None:
        streams = self._streams
        for output in outputs:
            job_id = self.output_id(output)
            stream = streams.get(job_id)
            if stream is None:  # it was given up while the step ran
                continue
            stream.scheduled(step_start)
            if self.is_last(output):
                stream.push(output, job_id)
                self._forget((job_id,))
            else:
                stream.push(output)

    def _fail_all(self, error: Exception) -> None:
        for stream in set(self._streams.values()):
            stream.fail(error)

    def _die(self) -> None:
        self._fail_all(RunFailed(f"the engine of {self.name!r} has failed"))

    # The engine's thread.

    def _run(self) -> None:
        engine = self._engine
        try:
            while self._apply_commands():
                if engine.has_work:
                    step_start = time.monotonic()
                    outputs: list[OutputT] = engine.step()
                    self._stepped()
                    if outputs:
                        self._call(self._deliver, outputs, step_start)
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {error}"
            logger.exception("the engine of %r has failed and is stopped", self.name)
            self._call(self._die)

    def _apply_commands(self) -> bool:
        """Take in what came since the last step, waiting if there is no work; False: stop."""
        engine, commands = self._engine, self._commands
        while not (engine.has_work and commands.empty()):
            command = commands.get()
            if command is None:
                return False
            if isinstance(command, Addition):
                self._add(command)
            else:
                for job_id in command.job_ids:
                    engine.abort(job_id)
        return True

    def _add(self, addition: Addition[JobT, OutputT]) -> None:
        engine = self._engine
        try:
            for job in addition.jobs:
                engine.add(job)
        except RequestError as error:
            for job in addition.jobs:
                engine.abort(self.job_id(job))
            self._call(addition.stream.fail, error)
        else:
            self._added(addition)

    def _added(self, addition: Addition[JobT, OutputT]) -> None:
        """What a kind of engine does once it has taken the jobs of a request."""

    def _stepped(self) -> None:
        """What a kind of engine does after each step, with or without outputs."""

    def _call(self, function: Callable[..., None], *args: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(function, *args)
