"""The worker of a model that reads texts: a job is one text."""

from __future__ import annotations

from engines.pooling.job import PoolingJob, PoolingOutput, PoolingStats
from server.engine import PoolingEngine
from server.worker import EngineWorker


class PoolingWorker(EngineWorker[PoolingEngine, PoolingJob, PoolingOutput]):
    """Runs a model of embeddings or relevance; `max_queue_size` counts texts that wait."""

    _JOBS = "texts"
    _ARE_RUN = "are being read"

    def __init__(
        self,
        engine: PoolingEngine,
        *,
        name: str,
        max_queue_size: int = 4096,
        request_timeout_s: float | None = None,
    ) -> None:
        super().__init__(
            engine,
            engine.max_num_rows,
            name=name,
            max_queue_size=max_queue_size,
            request_timeout_s=request_timeout_s,
        )

    @property
    def max_context(self) -> int:
        """Tokens of a text."""
        return self._engine.max_context

    @property
    def num_tokens(self) -> int:
        """Ids that a text may hold."""
        return self._engine.num_tokens

    def stats(self) -> PoolingStats:
        return self._engine.stats()

    @staticmethod
    def job_id(job: PoolingJob) -> int:
        return job.job_id

    @staticmethod
    def output_id(output: PoolingOutput) -> int:
        return output.job_id

    @staticmethod
    def is_last(output: PoolingOutput) -> bool:
        return True
