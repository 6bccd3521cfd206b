"""What the scheduler asks of a cache, whether it keeps a slot for each sequence or blocks."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Any, Protocol

from engines.llm.piece import Piece
from engines.llm.sequence import Sequence


class Cache(Protocol):
    """Keeps what was computed of sequences; sets `num_computed_tokens` when it reuses some."""

    @property
    def is_ragged(self) -> bool:
        """Whether one run takes pieces of any length of any number of sequences.

        Otherwise it takes one token of each of several, or one piece of one.
        """
        ...

    @property
    def limit_bytes(self) -> int: ...

    @property
    def used_bytes(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Tokens that fit when one sequence has the cache to itself."""
        ...

    def allocate(self, seq: Sequence) -> bool:
        """Take a sequence in, with what is known of its beginning; False if there is no room."""
        ...

    def reserve(self, seq: Sequence, num_new_tokens: int) -> bool:
        """Make room for more tokens of a sequence; False if another has to give way."""
        ...

    def chunk_size(self, seq: Sequence, size: int) -> int:
        """The tokens of the next chunk of a prompt, of which `size` are allowed."""
        ...

    def free(self, seq: Sequence) -> None:
        """Let a sequence go; its tokens stay for others while there is room."""
        ...

    def compact(self) -> None:
        """Put things in order before a decode step."""
        ...

    def decode(self, pieces: Rows[Piece]) -> tuple[Any, tuple[Piece, ...]]:
        """A batch of one token each, and the pieces in the order of its rows of logits."""
        ...

    def batch(self, pieces: Rows[Piece]) -> Any:
        """A batch of pieces, whose rows of logits have their order."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError if the books do not balance."""
        ...
