"""How much of a prompt one run computes."""

from __future__ import annotations

from engines.llm.sequence import Sequence

_LEAST = 8  # tokens of a chunk that was shortened for its context, and what it is a multiple of
_REST = 4  # one part of so many of a chunk may be taken along at a prompt's end


def chunk_size(seq: Sequence, chunk: int, half_at: int | None, most: int) -> int:
    """Tokens of a sequence to compute next, about `chunk` and at most `most` (or 3, if that is 2).

    Every token of a chunk attends to all before it, so that a chunk of one size takes the longer
    the more there are: with `half_at` it shrinks accordingly, to half behind so many tokens, so
    that whoever waits for it waits about as long. A rest of up to a quarter of a chunk is taken
    along, since a run that has to read all weights for it costs more.
    """
    past = seq.num_computed_tokens
    if half_at is not None and chunk > _LEAST:
        shortened = chunk * half_at // (half_at + past)
        chunk = min(chunk, max(_LEAST, shortened // _LEAST * _LEAST))
    remaining = seq.num_tokens - past
    if remaining <= min(chunk + chunk // _REST, most):
        return remaining
    if remaining == chunk + 1:
        # A tail of one token would meet the kernels of decode; so would the last but one of three.
        return chunk - 1 if chunk > 2 else remaining
    return min(chunk, remaining)
