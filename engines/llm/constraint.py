"""Which tokens may come next: what structured output is to the engine, which knows no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.llm.runner import IntArray

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
class Allowed:
    """The tokens that may come next, in the form that is quicker to apply to a row of logits."""

    flags: NDArray[np.bool_]  # [V]
    token_ids: IntArray | None  # where they are few

    @classmethod
    def of(cls, mask: TokenMask, vocab_size: int) -> Allowed:
        """Unpack a mask, which may be written over afterwards."""
        flags = np.zeros(vocab_size, np.bool_)
        count = min(vocab_size, mask.size * 32)
        bits = np.unpackbits(mask.view(np.uint8), count=count, bitorder="little")
        flags[:count] = bits.view(np.bool_)
        is_sparse = np.count_nonzero(flags) * _FEW < vocab_size
        return cls(flags, np.flatnonzero(flags) if is_sparse else None)
