"""How much of a prompt one run computes."""

from __future__ import annotations

from engines.llm.sequence import Sequence

_LEAST = 8  # tokens of a chunk that was shortened for its context, and what it is a multiple of


def chunk_size(seq: Sequence, chunk: int, half_at: int | None) -> int:
    """Tokens of a sequence to compute next, at most `chunk` (or 3, if that is 2).

    Every token of a chunk attends to all before it, so that a chunk of one size takes the longer
    the more there are: with `half_at` it shrinks accordingly, to half behind so many tokens, so
    that whoever waits for it waits about as long.
    """
    past = seq.num_computed_tokens
    if half_at is not None and chunk > _LEAST:
        shortened = chunk * half_at // (half_at + past)
        chunk = min(chunk, max(_LEAST, shortened // _LEAST * _LEAST))
    remaining = seq.num_tokens - past
    if remaining == chunk + 1:
        # A tail of one token would meet the kernels of decode; so would the last but one of three.
        return chunk - 1 if chunk > 2 else remaining
    return min(chunk, remaining)
