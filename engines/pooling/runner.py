"""What a backend that reads texts is given, and what it must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engines.llm.runner import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class PoolingBatch:
    """Whole texts side by side, or one chunk of one text.

    Row i has `lengths[i]` tokens, which stand at its beginning; what is behind them is padding. A
    chunk (n = 1) continues the `num_past` tokens of the text that has the cache for chunks, which
    other texts do not touch.
    """

    input_ids: IntArray  # [n, S]
    lengths: IntArray  # [n]
    num_past: int = 0
    is_chunk: bool = False


class PoolingRunner(Protocol):
    """A compiled model with the caches of its slots. `engines.backends` implements it."""

    @property
    def max_context(self) -> int: ...

    def run(self, batch: PoolingBatch) -> FloatArray:
        """Compute one batch; one thread calls.

        Returns:
            The output at the last token of each row, a copy. [n, output_width]

        Raises:
            RunFailed: The runtime rejected the inputs.
        """
        ...

    def release(self) -> None:
        """Give the memory of all slots back to the system."""
        ...

    def close(self) -> None:
        """Release the model and the memory of all slots."""
        ...
