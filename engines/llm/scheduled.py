"""A run that the scheduler has decided on, and which of its rows of logits become tokens."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from engines.llm.piece import Piece
from engines.llm.runner import IntArray
from engines.llm.sequence import Sequence


class ScheduledBatch(msgspec.Struct, frozen=True, eq=False):
    """A batch and the pieces of sequences in it, in the order of their rows of logits.

    A sequence in `sampled` gets a token, from the row of its last token, or, with a draft, from
    that before the first token of the draft, and further ones from the rows behind.
    """

    batch: Any  # of the kind that the cache makes and the runner takes
    pieces: tuple[Piece, ...]
    sampled: tuple[Sequence, ...]
    sampled_rows: IntArray  # [len(sampled)] of the logits
    draft: tuple[int, ...] = ()

    @classmethod
    def of(cls, batch: Any, pieces: tuple[Piece, ...]) -> ScheduledBatch:
        """Every sequence is sampled that a piece brings to its end."""
        ends = np.cumsum([piece.num_logits for piece in pieces])
        last = [index for index, piece in enumerate(pieces) if piece.is_last]
        sampled = tuple(pieces[index].seq for index in last)
        return cls(batch, pieces, sampled, ends[last] - 1)
