"""Which tokens may come next: what structured output is to the engine, which knows no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.llm.runner import FloatArray, IntArray

TokenMask = NDArray[np.uint32]  # bit i % 32 of word i // 32 says whether token i may come


class TokenConstraint(Protocol):
    """The state of one sequence in its grammar.

    The engine's thread calls it; `mask` alone may be asked ahead by another one, which may be at it
    while `forced_tokens` is asked, and is done before the next `accept`.

    It never raises, and always allows a token: one that cannot go on allows the end of the answer.
    """

    def mask(self) -> TokenMask | None:
        """The tokens that may come next, at least one; None where all may. [ceil(V / 32)]"""
        ...

    def accept(self, token_id: int) -> None:
        """Go on by the token that was sampled."""
        ...

    def forced_tokens(self) -> list[int]:
        """Tokens that alone can come next, one behind the other; empty where there is a choice."""
        ...


_FEW = 16  # a share of 1 / 16 of the vocabulary, below which ids are quicker than flags


@dataclass(frozen=True, slots=True)
class FewAllowed:
    """The tokens that may come next, by their ids."""

    token_ids: IntArray  # ascending


@dataclass(frozen=True, slots=True)
class ManyAllowed:
    """The tokens that may come next, as flags; the others by their ids where those are few."""

    flags: NDArray[np.bool_]  # [V]
    forbidden_ids: IntArray | None

    def masked(self, logits: FloatArray) -> FloatArray:
        """A copy of a row with the other tokens at minus infinity. [V]"""
        if self.forbidden_ids is None:
            return np.where(self.flags, logits, np.float32(-np.inf))
        masked = logits.copy()
        masked[self.forbidden_ids] = -np.inf
        return masked


Allowed = FewAllowed | ManyAllowed  # whichever is quicker to apply to a row of logits


def unpack(mask: TokenMask, vocab_size: int) -> Allowed:
    """What a mask says; it may be written over afterwards."""
    count = min(vocab_size, mask.size * 32)
    flags = np.unpackbits(mask.view(np.uint8), count=count, bitorder="little").view(np.bool_)
    if count < vocab_size:
        flags = np.concatenate([flags, np.zeros(vocab_size - count, np.bool_)])
    num_allowed = np.count_nonzero(flags)
    if num_allowed * _FEW < vocab_size:
        return FewAllowed(np.flatnonzero(flags))
    is_nearly_all = (vocab_size - num_allowed) * _FEW < vocab_size
    return ManyAllowed(flags, np.flatnonzero(~flags) if is_nearly_all else None)
