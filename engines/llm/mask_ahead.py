"""Unpack what grammars allow while the runtime computes the logits that it is for.

What may follow depends on the tokens so far alone, so it is known as soon as one was sampled. A
thread of its own works it out, as neither the runtime nor the grammar holds the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from concurrent.futures import Future, ThreadPoolExecutor

from engines.llm.constraint import Allowed, unpack
from engines.llm.sequence import Sequence

THREAD_NAME = "masks"


class MasksAhead:
    """What is allowed next, for each constrained sequence that lives."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[dict[int, Allowed | None]]] = {}

    def prepare(self, seqs: Rows[Sequence], vocab_size: int) -> None:
        """Begin to work out what may follow the tokens of each of `seqs`.

        In one task, as handing one over takes about as long as a mask.
        """
        if not seqs:
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=THREAD_NAME)
        task = self._executor.submit(_all_allowed, seqs, vocab_size)
        self._pending |= dict.fromkeys((seq.seq_id for seq in seqs), task)

    def take(self, seq: Sequence, vocab_size: int) -> Allowed | None:
        """What may follow; None where all tokens may."""
        task = self._pending.pop(seq.seq_id, None)
        return _allowed(seq, vocab_size) if task is None else task.result()[seq.seq_id]

    def forget(self, seq: Sequence) -> None:
        """Drop what was prepared for a finished sequence."""
        self._pending.pop(seq.seq_id, None)

    def close(self) -> None:
        """End the thread."""
        self._pending.clear()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _all_allowed(seqs: Rows[Sequence], vocab_size: int) -> dict[int, Allowed | None]:
    return {seq.seq_id: _allowed(seq, vocab_size) for seq in seqs}


def _allowed(seq: Sequence, vocab_size: int) -> Allowed | None:
    mask = None if seq.constraint is None else seq.constraint.mask()
    return None if mask is None else unpack(mask, vocab_size)
