"""Which tokens may come next: what structured output is to the engine, which knows no text."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.llm.runner import IntArray

TokenMask = NDArray[np.uint32]  # bit i % 32 of word i // 32 says whether token i may come


class TokenConstraint(Protocol):
    """The state of one sequence in its grammar; the engine's thread alone calls it.

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


def allowed_token_ids(mask: TokenMask, vocab_size: int) -> IntArray:
    """The ids whose bit is set, ascending."""
    bits = np.unpackbits(
        mask.view(np.uint8), count=min(vocab_size, mask.size * 32), bitorder="little"
    )
    return np.flatnonzero(bits)
