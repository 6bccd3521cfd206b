"""The worker of a language model: a job is one sequence."""

from __future__ import annotations

import time
from collections import deque

from engines.llm.output import EngineStats, StepOutput
from engines.llm.sequence import Sequence, SequenceStatus
from server.engine import ChatEngine
from server.worker import Addition, EngineWorker


class ChatWorker(EngineWorker[ChatEngine, Sequence, StepOutput]):
    """Runs a language model; `max_queue_size` counts the sequences that wait for a slot."""

    _JOBS = "answers"
    _ARE_RUN = "are being written"

    def __init__(
        self,
        engine: ChatEngine,
        *,
        name: str,
        max_queue_size: int = 256,
        request_timeout_s: float | None = None,
    ) -> None:
        super().__init__(
            engine,
            engine.max_num_seqs,
            name=name,
            max_queue_size=max_queue_size,
            request_timeout_s=request_timeout_s,
        )
        # Not scheduled yet; the thread's own.
        self._queued: deque[Addition[Sequence, StepOutput]] = deque()

    @property
    def max_context(self) -> int:
        """Tokens of a prompt and its answer together."""
        return self._engine.max_context

    @property
    def vocab_size(self) -> int:
        return self._engine.vocab_size

    def stats(self) -> EngineStats:
        return self._engine.stats()

    @staticmethod
    def job_id(job: Sequence) -> int:
        return job.seq_id

    @staticmethod
    def output_id(output: StepOutput) -> int:
        return output.seq_id

    @staticmethod
    def is_last(output: StepOutput) -> bool:
        return output.finish_reason is not None

    def _added(self, addition: Addition[Sequence, StepOutput]) -> None:
        self._queued.append(addition)

    def _stepped(self) -> None:
        """A long prompt takes many steps without outputs, so the status tells of its first one.

        The engine serves first come first served, so those that wait are at the end.
        """
        queued = self._queued
        while queued and queued[0].jobs[0].status is not SequenceStatus.WAITING:
            queued.popleft().stream.scheduled(time.monotonic())
