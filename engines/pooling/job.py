"""One text that is to be read, and the row of numbers that comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class PoolingJob:
    """A text; the scheduler alone changes `num_computed_tokens`.

    `dimensions` are how many numbers of an embedding are kept, from the first on; None keeps all.
    """

    job_id: int
    token_ids: list[int]
    dimensions: int | None = None
    num_computed_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class PoolingOutput:
    """What the model gives for a text: an embedding of length 1, or a single score."""

    job_id: int
    values: NDArray[np.float32]  # [width of the embedding], or [1]


@dataclass(frozen=True, slots=True)
class PoolingStats:
    """Counters and gauges; a snapshot that may be a step old."""

    num_waiting: int
    num_steps: int
    prompt_tokens: int
