"""Which texts are read next: short ones of like length side by side, long ones in chunks.

First come, first served for the text that a batch is built around; others may go along with it
before their turn, as they cost little then. Batches and chunks take turns, so that a long text
delays short ones by one chunk at a time, and is never starved by them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from engines.errors import ContextLengthExceeded
from engines.pooling.job import PoolingJob
from engines.pooling.runner import PoolingBatch

_WINDOW = 256  # jobs from the head of the queue that a batch is chosen from


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingSchedulerConfig:
    """Limits of a run."""

    max_rows: int = 16  # texts side by side
    max_run_tokens: int = 512  # of a run, padding included; a longer text is read in chunks
    max_padding: float = 0.2  # of a run's tokens, at most

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.max_run_tokens < 2:
            raise ValueError(
                f"max_rows is {self.max_rows} and max_run_tokens {self.max_run_tokens}, but they "
                "must be at least 1 and 2"
            )


@dataclass(frozen=True, slots=True)
class ScheduledPooling:
    """A batch, and the jobs whose last tokens are in it, in the order of its rows."""

    batch: PoolingBatch
    jobs: tuple[PoolingJob, ...]
    finished: tuple[PoolingJob, ...]


class PoolingScheduler:
    """Owns every job from `add` until it is finished."""

    def __init__(self, config: PoolingSchedulerConfig, max_context: int) -> None:
        self._config = config
        self._max_context = max_context
        self._short: deque[PoolingJob] = deque()
        self._long: deque[PoolingJob] = deque()
        self._chunk_is_next = False

    @property
    def has_work(self) -> bool:
        return bool(self._short or self._long)

    @property
    def num_waiting(self) -> int:
        return len(self._short) + len(self._long)

    def add(self, job: PoolingJob) -> None:
        """Queue a text.

        Raises:
            ContextLengthExceeded: It is longer than what the model reads.
        """
        if job.num_tokens > self._max_context:
            raise ContextLengthExceeded(
                f"the text has {job.num_tokens} tokens, but this model reads {self._max_context}"
            )
        is_short = job.num_tokens <= self._config.max_run_tokens
        (self._short if is_short else self._long).append(job)

    def remove(self, job: PoolingJob) -> None:
        """Forget a job, wherever it is."""
        for queue in (self._short, self._long):
            if job in queue:
                queue.remove(job)

    def schedule(self) -> ScheduledPooling | None:
        """The next run; None when nothing waits."""
        if self._long and (self._chunk_is_next or not self._short):
            self._chunk_is_next = False
            return self._next_chunk()
        self._chunk_is_next = True
        return self._next_batch() if self._short else None

    def _next_chunk(self) -> ScheduledPooling:
        job = self._long[0]
        start = job.num_computed_tokens
        stop = min(start + self._config.max_run_tokens, job.num_tokens)
        if job.num_tokens - stop == 1:
            stop -= 1  # a chunk of one token would meet the kernels of decode
        job.num_computed_tokens = stop
        ids = np.array([job.token_ids[start:stop]], np.int64)
        batch = PoolingBatch(ids, np.array([stop - start]), start, is_chunk=True)
        if stop < job.num_tokens:
            return ScheduledPooling(batch, (job,), ())
        self._long.popleft()
        return ScheduledPooling(batch, (job,), (job,))

    def _next_batch(self) -> ScheduledPooling:
        jobs = self._alike(self._short[0])
        for job in jobs:
            self._short.remove(job)
            job.num_computed_tokens = job.num_tokens
        lengths = np.array([job.num_tokens for job in jobs], np.int64)
        ids = np.zeros((len(jobs), int(lengths.max())), np.int64)
        for row, job in enumerate(jobs):
            ids[row, : job.num_tokens] = job.token_ids
        return ScheduledPooling(PoolingBatch(ids, lengths), tuple(jobs), tuple(jobs))

    def _alike(self, first: PoolingJob) -> list[PoolingJob]:
        """`first`, and of the jobs behind it those nearest to its length that fit into a run."""
        config = self._config
        window = [self._short[i] for i in range(1, min(len(self._short), _WINDOW))]
        window.sort(key=lambda job: abs(job.num_tokens - first.num_tokens))
        chosen, num_tokens, longest = [first], first.num_tokens, first.num_tokens
        for job in window:
            width = max(longest, job.num_tokens)
            size, used = width * (len(chosen) + 1), num_tokens + job.num_tokens
            if len(chosen) == config.max_rows or size > config.max_run_tokens:
                break
            if size - used > config.max_padding * size:
                break
            chosen.append(job)
            num_tokens, longest = used, width
        return chosen
