"""Log-probabilities of prompts, collected chunk by chunk for the requests that echo them."""

from __future__ import annotations

from engines.llm.output import TokenLogprobs
from engines.llm.piece import Piece
from engines.llm.runner import RunOutput
from engines.llm.sampler import token_logprobs
from engines.llm.scheduled import ScheduledBatch
from engines.llm.sequence import Sequence


class PromptLogprobs:
    """Keyed by sequence and position, so that a chunk that is computed twice counts once."""

    def __init__(self) -> None:
        self._collected: dict[int, dict[int, TokenLogprobs]] = {}

    def collect(self, scheduled: ScheduledBatch, output: RunOutput) -> None:
        """Take what a prefill run says of the prompt tokens behind its rows."""
        first_row = 0
        for piece in scheduled.pieces:
            if piece.seq.sampling.prompt_logprobs and piece.num_logits == len(piece.token_ids):
                self._collect(piece, first_row, output)
            first_row += piece.num_logits

    def _collect(self, piece: Piece, first_row: int, output: RunOutput) -> None:
        seq = piece.seq
        start = seq.num_computed_tokens + 1  # the first row predicts the token after the first
        found = self._collected.setdefault(seq.seq_id, {})
        for row in range(piece.num_logits):
            position = start + row
            if position < seq.num_prompt_tokens:
                found[position] = token_logprobs(
                    output.logits(first_row + row),
                    seq.token_ids[position],
                    seq.sampling.num_logprobs or 0,
                )

    def take(self, seq: Sequence) -> tuple[TokenLogprobs | None, ...] | None:
        """The whole prompt's entries, None for the first token; forgets them."""
        found = self._collected.pop(seq.seq_id, None)
        if found is None and not seq.sampling.prompt_logprobs:
            return None
        return (None, *(found or {}).values())
