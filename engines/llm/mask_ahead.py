"""Unpack what grammars allow while the runtime computes the logits that it is for.

What may follow depends on the tokens so far alone, so it is known as soon as one was sampled. A
thread of its own works it out, as neither the runtime nor the grammar holds the interpreter.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from engines.llm.constraint import Allowed
from engines.llm.sequence import Sequence


class MasksAhead:
    """What is allowed next, for each constrained sequence that lives."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[Allowed | None]] = {}

    def prepare(self, seq: Sequence, vocab_size: int) -> None:
        """Begin to work out what may follow the tokens of `seq`."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="masks")
        self._pending[seq.seq_id] = self._executor.submit(_allowed, seq, vocab_size)

    def take(self, seq: Sequence, vocab_size: int) -> Allowed | None:
        """What may follow; None where all tokens may."""
        prepared = self._pending.pop(seq.seq_id, None)
        return _allowed(seq, vocab_size) if prepared is None else prepared.result()

    def forget(self, seq: Sequence) -> None:
        """Drop what was prepared for a finished sequence."""
        self._pending.pop(seq.seq_id, None)

    def close(self) -> None:
        """End the thread."""
        self._pending.clear()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _allowed(seq: Sequence, vocab_size: int) -> Allowed | None:
    mask = None if seq.constraint is None else seq.constraint.mask()
    return None if mask is None else Allowed.of(mask, vocab_size)
