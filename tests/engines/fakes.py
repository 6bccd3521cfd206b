"""A runner whose next token is a hash of what its slots really hold.

It stores token ids where a model would store keys and values. A row that was lost, shared or
overwritten changes every later token, so comparing tokens compares caches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engines.llm.candidates import superset
from engines.llm.runner import Batch, FloatArray, IntArray

JUNK = -1


@dataclass
class ArrayLogits:
    values: FloatArray  # [R, V]

    def argmax(self, rows: IntArray) -> IntArray:
        return self.values[rows].argmax(axis=1)

    def candidates(self, row: int, k: int) -> tuple[IntArray, FloatArray]:
        token_ids = superset(self.values[row], k)
        return token_ids, self.values[row][token_ids]

    def logits(self, row: int) -> FloatArray:
        return self.values[row]


@dataclass
class HashRunner:
    num_slots: int = 4
    max_context: int = 64
    vocab_size: int = 97
    bytes_per_token: int = 10
    bytes_per_slot: int = 0  # above 0: the next token depends on a state that nothing rolls back
    decodes_from_first: bool = False
    habit: float = 0.0  # how often the next token is one that the last two tokens stand for
    batches: list[Batch] = field(default_factory=list)
    num_swaps: int = 0

    def __post_init__(self) -> None:
        self.rows = np.full((self.num_slots, self.max_context + 1), JUNK, np.int64)
        self.states = [0] * self.num_slots

    def run(self, batch: Batch) -> ArrayLogits:
        num_rows, size = batch.input_ids.shape
        assert num_rows > 0
        assert size > 0
        assert num_rows == 1 or size == 1, "several slots take one token each"
        assert batch.first_slot + num_rows <= self.num_slots
        self.batches.append(batch)
        logits = np.zeros((num_rows * size, self.vocab_size), np.float32)
        for row in range(num_rows):
            slot, past = batch.first_slot + row, int(batch.past_lens[row])
            self.rows[slot, past : past + size] = batch.input_ids[row]
            if past == 0:
                self.states[slot] = 0
            for step in range(size):
                held = tuple(self.rows[slot, : past + step + 1].tolist())
                if self.bytes_per_slot:
                    # Of all tokens that ever ran here since the first.
                    self.states[slot] = _digest(
                        (self.states[slot], int(batch.input_ids[row, step]))
                    )
                    held = (*held, self.states[slot])
                logits[row * size + step] = hash_logits(held, self.vocab_size, self.habit)
        return ArrayLogits(logits[batch.logit_indices])

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        self.rows[target, :num_tokens] = self.rows[source, :num_tokens]
        self.states[target] = self.states[source]

    def swap_slots(self, first: int, second: int, num_first: int, num_second: int) -> None:
        self.num_swaps += 1
        kept = self.rows[first, :num_first].copy()
        self.rows[first, :num_second] = self.rows[second, :num_second]
        self.rows[second, :num_first] = kept
        self.states[first], self.states[second] = self.states[second], self.states[first]

    def save_state(self, slot: int) -> object:
        return self.states[slot]

    def load_state(self, slot: int, state: object) -> None:
        assert isinstance(state, int)
        self.states[slot] = state

    def release_slot(self, slot: int) -> None:
        self.rows[slot] = JUNK
        self.states[slot] = JUNK

    def close(self) -> None:
        self.rows[:] = JUNK


def hash_logits(held: tuple[int, ...], vocab_size: int, habit: float = 0.0) -> FloatArray:
    """Logits that depend on every token held; a constant of the tokens, not of the process."""
    generator = np.random.default_rng(_digest(held))
    logits = generator.standard_normal(vocab_size).astype(np.float32)
    if generator.random() < habit:
        logits[4 + _digest(held[-2:]) % 3] += 20
    return logits


def _digest(held: tuple[int, ...]) -> int:
    digest = 17
    for token in held:
        digest = (digest * 1_000_003 + token + 7) % (2**61 - 1)
    return digest
