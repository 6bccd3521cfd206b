"""What a backend is given, what it answers and what it must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of one run over the slots `first_slot` to `first_slot + n - 1`.

    Either a decode step (S = 1, any n >= 1) or one chunk of one prompt (n = 1, S >= 1). Every row
    writes its S tokens behind the `past_lens` tokens that its slot already holds.
    """

    first_slot: int
    input_ids: IntArray  # [n, S]
    past_lens: NDArray[np.int32]  # [n]
    logit_indices: IntArray  # [R] rows of [n * S] for which logits are computed

    @property
    def num_slots(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.size)


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """The inputs of one run over shared blocks: tokens of B sequences end to end.

    Sequence b computes the tokens `cu_seqlens[b]` to `cu_seqlens[b + 1] - 1`, behind the
    `past_lens[b]` tokens that its blocks already hold; its blocks have room for both.
    """

    input_ids: IntArray  # [T]
    cu_seqlens: NDArray[np.int32]  # [B + 1]
    past_lens: NDArray[np.int32]  # [B]
    block_tables: NDArray[np.int32]  # [B, M] padded with -1
    logit_indices: IntArray  # [R] of the T tokens, for which logits are computed

    @property
    def num_seqs(self) -> int:
        return len(self.past_lens)

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def is_decode(self) -> bool:
        """Whether every sequence computes one token."""
        return self.num_tokens == self.num_seqs


class RunOutput(Protocol):
    """Logits of the R rows that the batch asked for; valid until the runner's next call."""

    def argmax(self, rows: IntArray) -> IntArray:
        """The most likely token of each of `rows`. [len(rows)]"""
        ...

    def candidates(self, row: int, k: int) -> tuple[IntArray, FloatArray]:
        """At least the `k` most likely tokens of a row, by id: ids and logits. [>= k] each."""
        ...

    def logits(self, row: int) -> FloatArray:
        """All logits of a row, not to be written to. [num_tokens of the vocabulary]"""
        ...


class OrderedCandidates(Protocol):
    """An output that gives the likeliest tokens of many rows together."""

    @property
    def num_candidates(self) -> int:
        """The most of each row; always the same of one engine."""
        ...

    def ordered_candidates(self, rows: IntArray, k: int) -> tuple[IntArray, FloatArray]:
        """Ids and logits of the `k` likeliest, the likeliest first. [len(rows), k] each

        `k` is at least 1 and at most `num_candidates`.
        """
        ...


class Runner(Protocol):
    """A compiled model with its cache; it runs the batches that its kind of cache makes."""

    @property
    def max_context(self) -> int: ...

    @property
    def vocab_size(self) -> int:
        """Tokens that can be sampled; padded columns of the head are cut off."""
        ...

    def run(self, batch: Any, /) -> RunOutput:
        """Compute one batch; one thread calls.

        Raises:
            RunFailed: The runtime rejected the inputs. The caches are then undefined.
        """
        ...

    def close(self) -> None:
        """Release the model and its caches."""
        ...


class BlockRunner(Runner, Protocol):
    """A model with a cache of blocks, which `RaggedBatch`es name."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        ...

    @property
    def bytes_per_token(self) -> int:
        """Cache memory that one token takes."""
        ...

    def run(self, batch: RaggedBatch, /) -> RunOutput: ...


class ModelRunner(Runner, Protocol):
    """A model with the states of its slots. `engines.backends` implements it."""

    @property
    def num_slots(self) -> int: ...

    @property
    def bytes_per_token(self) -> int:
        """Cache memory that one token of one slot takes."""
        ...

    @property
    def decodes_from_first(self) -> bool:
        """Whether decode steps should begin at slot 0, to which a sequence is moved at no cost."""
        ...

    def run(self, batch: Batch, /) -> RunOutput:
        """Compute one batch and write its keys and values into its slots."""
        ...

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the states of the first `num_tokens` tokens of a slot into another."""
        ...

    def swap_slots(self, first: int, second: int, num_first: int, num_second: int) -> None:
        """Exchange two slots that hold `num_first` and `num_second` tokens."""
        ...

    def release_slot(self, slot: int) -> None:
        """Give the memory of a slot back to the system; its content is lost."""
        ...


class StatefulRunner(ModelRunner, Protocol):
    """A model that keeps, beside what grows by the token, states that cannot be rolled back.

    A run changes them in each of its slots, so none may run idle. In a slot that holds no token
    they are zero: a run with `past_lens` of 0 starts there, whatever was left behind.
    """

    @property
    def bytes_per_slot(self) -> int:
        """Memory of the states of one slot; 0 of a model that has none."""
        ...

    def save_state(self, slot: int) -> object:
        """A copy of the states of a slot."""
        ...

    def load_state(self, slot: int, state: object) -> None:
        """Set the states of a slot to what `save_state` gave."""
        ...
