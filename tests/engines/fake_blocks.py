"""A runner over blocks whose next token is a hash of what the blocks of a sequence really hold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engines.llm.runner import RaggedBatch
from tests.engines.fakes import JUNK, ArrayLogits, hash_logits


@dataclass
class HashBlockRunner:
    """Stores token ids where a model would store keys and values, as `HashRunner` does in slots."""

    num_blocks: int = 32
    block_size: int = 4
    max_context: int = 64
    vocab_size: int = 97
    bytes_per_token: int = 10
    habit: float = 0.0
    batches: list[RaggedBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = np.full((self.num_blocks, self.block_size), JUNK, np.int64)

    def run(self, batch: RaggedBatch) -> ArrayLogits:
        self.batches.append(batch)
        self._check(batch)
        logits = np.zeros((batch.num_tokens, self.vocab_size), np.float32)
        for row, table in enumerate(batch.block_tables):
            past = int(batch.past_lens[row])
            for token in range(batch.cu_seqlens[row], batch.cu_seqlens[row + 1]):
                position = past + int(token - batch.cu_seqlens[row])
                block = table[position // self.block_size]
                assert block >= 0, "a token has no block"
                self.rows[block, position % self.block_size] = batch.input_ids[token]
        for row, table in enumerate(batch.block_tables):  # all is written before it is read
            past = int(batch.past_lens[row])
            held = self.rows[table[table >= 0]].reshape(-1)
            for token in range(batch.cu_seqlens[row], batch.cu_seqlens[row + 1]):
                length = past + int(token - batch.cu_seqlens[row]) + 1
                seen = tuple(held[:length].tolist())
                logits[token] = hash_logits(seen, self.vocab_size, self.habit)
        return ArrayLogits(logits[batch.logit_indices])

    def close(self) -> None:
        self.rows[:] = JUNK

    def _check(self, batch: RaggedBatch) -> None:
        assert batch.num_tokens == batch.cu_seqlens[-1] > 0
        assert (np.diff(batch.cu_seqlens) > 0).all(), "a sequence without a token"
        assert len(batch.block_tables) == len(batch.past_lens) == len(batch.cu_seqlens) - 1
        assert batch.block_tables.max() < self.num_blocks
        assert (np.diff(batch.logit_indices) > 0).all()
        ends = batch.past_lens + np.diff(batch.cu_seqlens)
        written = [
            (int(table[position // self.block_size]), position % self.block_size)
            for table, past, end in zip(batch.block_tables, batch.past_lens, ends, strict=True)
            for position in range(int(past), int(end))
        ]
        assert len(set(written)) == len(written), "two sequences write to one place"
