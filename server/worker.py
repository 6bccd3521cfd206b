"""One thread owns one engine; requests on the event loop add sequences and await their tokens.

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
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from queue import SimpleQueue

from engines.errors import InvalidRequest, QueueFull, RequestError, RunFailed
from engines.llm.output import EngineStats, StepOutput
from engines.llm.sequence import Sequence, SequenceStatus
from server.engine import Engine
from server.errors import ServerUnavailable
from server.token_stream import TokenStream

logger = logging.getLogger(__name__)

TICK_S = 1.0
JOIN_TIMEOUT_S = 10.0  # a step is far shorter, unless the runtime hangs


@dataclass(frozen=True, slots=True)
class _Add:
    sequences: tuple[Sequence, ...]
    stream: TokenStream
    time: float


@dataclass(frozen=True, slots=True)
class _Abort:
    seq_ids: tuple[int, ...]


_Command = _Add | _Abort | None  # None: stop


class EngineWorker:
    """Runs an engine for the requests of one event loop; all methods are called on that loop.

    Args:
        engine: Stepped by the worker's thread alone, from `start` to `stop`.
        name: The model's name, for messages and the thread.
        max_queue_size: Sequences that may wait beyond those that the engine runs at a time.
        request_timeout_s: Seconds after which a request that is not finished is given up.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        max_queue_size: int = 256,
        request_timeout_s: float | None = None,
    ) -> None:
        self.name = name
        self.failure: str | None = None  # why the engine stopped, if it did by itself
        self._engine = engine
        self._max_sequences = engine.max_num_seqs + max_queue_size
        self._request_timeout_s = request_timeout_s
        self._seq_ids = itertools.count()
        self._streams: dict[int, TokenStream] = {}  # by the id of each unfinished sequence
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._queued: deque[_Add] = deque()  # not scheduled yet; the thread's own
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def max_context(self) -> int:
        """Tokens of a prompt and its answer together."""
        return self._engine.max_context

    @property
    def vocab_size(self) -> int:
        return self._engine.vocab_size

    @property
    def device(self) -> str:
        return self._engine.device

    @property
    def is_alive(self) -> bool:
        """Whether requests are being worked on; False before `start` and after a failure."""
        thread = self._thread
        return self.failure is None and thread is not None and thread.is_alive()

    @property
    def num_running(self) -> int:
        """Unfinished sequences, as far as the engine runs so many at a time."""
        return min(len(self._streams), self._engine.max_num_seqs)

    @property
    def num_waiting(self) -> int:
        """Unfinished sequences beyond those."""
        return len(self._streams) - self.num_running

    def stats(self) -> EngineStats:
        return self._engine.stats()

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

    def new_seq_ids(self, count: int) -> list[int]:
        """Ids for sequences that are to be generated; later ones are larger."""
        return list(itertools.islice(self._seq_ids, count))

    def generate(self, sequences: Many[Sequence]) -> TokenStream:
        """Queue the sequences of one request; their tokens come out of the returned stream.

        Close the stream (it is a context manager) to give up what is not finished.

        Raises:
            QueueFull: As many sequences wait as the queue holds.
            InvalidRequest: These alone are more than the queue holds.
            ServerUnavailable: The server is shutting down, or the engine has stopped.
        """
        if not self.is_alive or self._is_draining:
            raise ServerUnavailable(
                "The server is shutting down."
                if self._is_draining
                else f"The engine of {self.name!r} has stopped."
            )
        self._check_room(len(sequences))
        seq_ids = [seq.seq_id for seq in sequences]
        stream = TokenStream(seq_ids, self._abort, self._request_timeout_s)
        self._streams.update((seq.seq_id, stream) for seq in sequences)
        self._idle.clear()
        self._commands.put(_Add(tuple(sequences), stream, time.monotonic()))
        if self._ticker is None and self._loop is not None:
            self._ticker = self._loop.call_later(TICK_S, self._tick)
        return stream

    def _check_room(self, count: int) -> None:
        limit = self._max_sequences
        if count > limit:
            raise InvalidRequest(
                f"the request asks for {count} answers, but this server holds {limit} at a time",
                "n",
            )
        if len(self._streams) + count > limit:
            raise QueueFull(
                f"the queue of {self.name!r} is full: {self.num_waiting} answers wait and "
                f"{self.num_running} are being written, try again later"
            )

    def _forget(self, seq_ids: tuple[int, ...]) -> None:
        for seq_id in seq_ids:
            self._streams.pop(seq_id, None)
        if not self._streams:
            self._idle.set()

    def _abort(self, seq_ids: tuple[int, ...]) -> None:
        self._forget(seq_ids)
        self._commands.put(_Abort(seq_ids))

    def _tick(self) -> None:
        """Once a second while there is work: clients may have left, deadlines may have passed."""
        for stream in set(self._streams.values()):
            stream.tick()
        self._ticker = None
        if self._streams and self._loop is not None:
            self._ticker = self._loop.call_later(TICK_S, self._tick)

    def _deliver(self, outputs: list[StepOutput]) -> None:
        streams = self._streams
        for output in outputs:
            stream = streams.get(output.seq_id)
            if stream is not None:  # else it was given up while the step ran
                stream.push(output)
                if output.finish_reason is not None:
                    self._forget((output.seq_id,))

    def _fail_all(self, error: Exception) -> None:
        for stream in set(self._streams.values()):
            stream.fail(error)

    def _die(self) -> None:
        self._fail_all(RunFailed(f"the engine of {self.name!r} has failed"))

    # The engine's thread.

    def _run(self) -> None:
        try:
            while self._apply_commands():
                if self._engine.has_work:
                    outputs = self._engine.step()
                    self._note_scheduled()
                    if outputs:
                        self._call(self._deliver, outputs)
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {error}"
            logger.exception("the engine of %r has failed and is stopped", self.name)
            self._call(self._die)

    def _apply_commands(self) -> bool:
        """Take in what came since the last step, waiting if there is no work; False: stop."""
        commands = self._commands
        while not (self._engine.has_work and commands.empty()):
            command = commands.get()
            if command is None:
                return False
            if isinstance(command, _Add):
                self._add(command)
            else:
                for seq_id in command.seq_ids:
                    self._engine.abort(seq_id)
        return True

    def _add(self, command: _Add) -> None:
        try:
            for seq in command.sequences:
                self._engine.add(seq)
        except RequestError as error:
            for seq in command.sequences:
                self._engine.abort(seq.seq_id)
            self._call(command.stream.fail, error)
        else:
            self._queued.append(command)

    def _note_scheduled(self) -> None:
        """The engine serves first come first served, so those that wait are at the end."""
        queued = self._queued
        while queued and queued[0].sequences[0].status is not SequenceStatus.WAITING:
            command = queued.popleft()
            command.stream.queue_time_s = time.monotonic() - command.time

    def _call(self, function: Callable[..., None], *args: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(function, *args)
