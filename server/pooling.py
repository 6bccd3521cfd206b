"""One request on its way through a worker that reads texts: token ids in, rows of numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.errors import ContextLengthExceeded
from engines.pooling.job import PoolingJob, PoolingOutput
from server.in_flight import InFlight
from server.observe import RequestRecord
from server.registry import PoolingModel


class Reading(InFlight[PoolingOutput, PoolingOutput]):
    """What a model gives for some texts; `rows` are complete when the iteration ends.

    The news are what each step brought.

    Raises:
        QueueFull: As many texts wait as the worker's queue holds.
        ServerUnavailable: The worker takes no requests.
    """

    def __init__(
        self,
        model: PoolingModel,
        texts: Sequence[list[int]],
        record: RequestRecord,
        dimensions: int | None = None,
    ) -> None:
        self._num_tokens = sum(map(len, texts))
        ids = model.worker.new_ids(len(texts))
        self._index = {job_id: index for index, job_id in enumerate(ids)}
        self._rows: list[NDArray[np.float32] | None] = [None] * len(texts)
        jobs = [PoolingJob(id, text, dimensions) for id, text in zip(ids, texts, strict=True)]
        self._num_left = len(jobs)
        super().__init__(model.worker.run(jobs), record)
        record.admitted(self._num_tokens)

    @property
    def rows(self) -> list[NDArray[np.float32]]:
        """In the order of the texts."""
        return [row for row in self._rows if row is not None]

    @property
    def num_tokens(self) -> int:
        """Of all texts."""
        return self._num_tokens

    @property
    def is_complete(self) -> bool:
        return self._num_left == 0

    @property
    def finish_reason(self) -> str:
        return "stop" if self.is_complete else "abort"

    async def __anext__(self) -> list[PoolingOutput] | None:
        outputs = await self._stream.__anext__()
        for output in outputs or ():
            self._rows[self._index[output.job_id]] = output.values
            self._num_left -= 1
        self._note_start()
        return outputs


def check_length(max_context: int, num_tokens: int, param: str) -> None:
    """Hold a text against what the model reads.

    Raises:
        ContextLengthExceeded: It is longer.
    """
    if num_tokens > max_context:
        raise ContextLengthExceeded(
            f"This model reads texts of up to {max_context} tokens, but {param} has {num_tokens}",
            param,
        )
