"""The engine of embeddings and scores: token ids in, one row of numbers a text out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from engines.errors import InvalidRequest
from engines.llm.runner import FloatArray
from engines.pooling.job import PoolingJob, PoolingOutput, PoolingStats
from engines.pooling.runner import PoolingRunner
from engines.pooling.scheduler import PoolingScheduler, PoolingSchedulerConfig

_LEAST_NORM = 1e-12  # of a state; a shorter one has no direction


class PoolingEngine(ABC):
    """Batches texts over one compiled model. One thread owns it; `stats` may be read by all.

    Args:
        runner: The compiled model; closed with the engine.
        config: Limits of a run.
        num_tokens: Ids that a text may hold.
        device: What the engine runs on, for people to read.
    """

    def __init__(
        self, runner: PoolingRunner, config: PoolingSchedulerConfig, num_tokens: int, device: str
    ) -> None:
        self.device = device
        self.num_tokens = num_tokens
        self.max_num_rows = config.max_rows
        self._runner = runner
        self._scheduler = PoolingScheduler(config, runner.max_context)
        self._live: dict[int, PoolingJob] = {}
        self._num_steps = 0
        self._num_prompt_tokens = 0

    @property
    def max_context(self) -> int:
        """Tokens of a text."""
        return self._runner.max_context

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def add(self, job: PoolingJob) -> None:
        """Queue a text.

        Raises:
            ContextLengthExceeded: It is longer than what the model reads.
            InvalidRequest: It is empty, or holds an id that is not in the vocabulary.
            ValueError: Its `job_id` is in use.
        """
        if job.job_id in self._live:
            raise ValueError(f"job_id {job.job_id} belongs to a text that is not finished")
        if not job.token_ids:
            raise InvalidRequest("the text is empty, but a model needs at least one token")
        if not (min(job.token_ids) >= 0 and max(job.token_ids) < self.num_tokens):
            wrong = next(i for i in job.token_ids if not 0 <= i < self.num_tokens)
            raise InvalidRequest(
                f"the text has the token id {wrong}, but ids run from 0 to {self.num_tokens - 1}"
            )
        self._scheduler.add(job)
        self._live[job.job_id] = job

    def abort(self, job_id: int) -> None:
        """Forget a text; unknown and finished ids are ignored."""
        job = self._live.pop(job_id, None)
        if job is not None:
            self._scheduler.remove(job)
            self._rest()

    def step(self) -> list[PoolingOutput]:
        """Run one batch; what came of the texts that ended with it.

        Raises:
            RunFailed: The runtime failed; the engine has to be closed.
        """
        scheduled = self._scheduler.schedule()
        if scheduled is None:
            return []
        rows = self._runner.run(scheduled.batch)
        self._num_steps += 1
        self._num_prompt_tokens += int(scheduled.batch.lengths.sum())
        for job in scheduled.finished:
            del self._live[job.job_id]
        outputs = [
            PoolingOutput(job.job_id, self._pool(job, row))
            for job, row in zip(scheduled.finished, rows, strict=False)
        ]
        self._rest()
        return outputs

    def stats(self) -> PoolingStats:
        """Counters and gauges; a snapshot that may be a step old."""
        return PoolingStats(self._scheduler.num_waiting, self._num_steps, self._num_prompt_tokens)

    def close(self) -> None:
        """Release the model and its caches. The engine cannot be used afterwards."""
        self._live.clear()
        self._runner.close()

    @abstractmethod
    def _pool(self, job: PoolingJob, row: FloatArray) -> FloatArray:
        """What a text gets, from the graph's output at its last token. [output_width] in"""

    def _rest(self) -> None:
        """Nothing is reused between texts, so that an engine without work holds no cache."""
        if not self._scheduler.has_work:
            self._runner.release()


class EmbeddingEngine(PoolingEngine):
    """The state of the last token, its first `dimensions` alone, scaled to length 1."""

    def _pool(self, job: PoolingJob, row: FloatArray) -> FloatArray:
        return normalized(row[: job.dimensions])


class RerankEngine(PoolingEngine):
    """Logits of "no" and "yes" become the probability of "yes" between the two."""

    def _pool(self, job: PoolingJob, row: FloatArray) -> FloatArray:
        difference = float(row[0]) - float(row[1])  # no - yes
        return np.array([1 / (1 + np.exp(min(difference, 700)))], np.float32)


def normalized(rows: FloatArray) -> FloatArray:
    """Rows of length 1 (by the sum of squares); rows of zeros stay. [n, width] in and out."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
    scaled: FloatArray = (rows / np.maximum(norms, _LEAST_NORM)).astype(np.float32)
    return scaled
