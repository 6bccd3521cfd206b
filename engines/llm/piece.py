"""The unit of scheduling: some tokens of one sequence, computed in one run."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import msgspec

from engines.llm.sequence import Sequence


class Piece(msgspec.Struct, frozen=True, eq=False):
    """Tokens of one sequence that a run computes, behind those that the cache holds.

    Attributes:
        seq: The sequence.
        token_ids: The tokens; a draft's are not the sequence's yet.
        num_logits: How many of them, the last ones, get a row of logits.
        num_new_tokens: How many of them, the first ones, are the sequence's.
    """

    seq: Sequence
    token_ids: Rows[int]
    num_logits: int
    num_new_tokens: int

    @classmethod
    def chunk(cls, seq: Sequence, size: int) -> Piece:
        """The next `size` tokens of a prompt."""
        start, end = seq.num_computed_tokens, seq.num_computed_tokens + size
        if seq.sampling.prompt_logprobs and start < seq.num_prompt_tokens:
            num_logits = size
        else:
            num_logits = 1 if end == seq.num_tokens else 0
        return cls(seq, seq.token_ids[start:end], num_logits, num_new_tokens=size)

    @classmethod
    def next_token(cls, seq: Sequence) -> Piece:
        """The last token of a running sequence, which is not computed yet."""
        return cls(seq, seq.token_ids[-1:], 1, num_new_tokens=1)

    @property
    def is_last(self) -> bool:
        """Whether it ends the sequence as it stands, so that the next token can be drawn."""
        return self.seq.num_computed_tokens + self.num_new_tokens == self.seq.num_tokens
