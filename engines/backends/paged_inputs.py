"""A ragged batch as the paged graph takes it: packed, or padded to a bucket for replay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.backends.gpu_session import decode_key, length_bucket
from engines.llm.runner import IntArray, RaggedBatch

BUCKETS: tuple[int, ...] = (
    1,
    2,
    4,
    *range(8, 257, 8),
)  # sequences of a decode step that is recorded
MAX_SEQS = BUCKETS[-1]


@dataclass(frozen=True, slots=True)
class PagedInputs:
    """The graph's inputs but for the caches.

    `attention_metadata` stays on the host: bounds for the tokens that a sequence computes and for
    those that it can see, which hold for every replay of the same `graph_key`.
    """

    input_ids: IntArray  # [T]
    cumulative_sequence_lengths: NDArray[np.int32]  # [B + 1]
    past_sequence_lengths: NDArray[np.int32]  # [B]
    block_table: NDArray[np.int32]  # [B, M]
    slot_mapping: NDArray[np.int32]  # [T], -1 writes nothing
    position_ids: IntArray  # [T], which few graphs ask for
    logit_indices: IntArray  # [R]
    attention_metadata: NDArray[np.int32]  # [2]
    graph_key: int | None

    def on_device(self, *, with_positions: bool = False) -> dict[str, NDArray[np.generic]]:
        """What is sent to the GPU, by its name in the graph."""
        positions = {"position_ids": self.position_ids} if with_positions else {}
        return positions | {
            "input_ids": self.input_ids,
            "cumulative_sequence_lengths": self.cumulative_sequence_lengths,
            "past_sequence_lengths": self.past_sequence_lengths,
            "block_table": self.block_table,
            "slot_mapping": self.slot_mapping,
            "logit_indices": self.logit_indices,
        }


def pack(batch: RaggedBatch, block_size: int, max_context: int) -> PagedInputs:
    """The inputs of a batch; a decode step is padded to a bucket, so that it can be replayed."""
    lengths = np.diff(batch.cu_seqlens)  # [B]
    totals = batch.past_lens + lengths  # [B]
    rows = np.repeat(np.arange(batch.num_seqs), lengths)  # [T]
    positions = batch.past_lens[rows] + np.arange(batch.num_tokens) - batch.cu_seqlens[rows]
    blocks = batch.block_tables[rows, positions // block_size]
    # Where each token's key and value go: in which block, and where in it. [T]
    slots = (blocks * block_size + positions % block_size).astype(np.int32)
    if batch.is_decode and len(batch.logit_indices) == batch.num_seqs:
        return _decode(batch, slots, int(totals.max()), block_size, max_context)
    bounds = np.array([lengths.max(), totals.max()], np.int32)
    return PagedInputs(
        input_ids=batch.input_ids,
        cumulative_sequence_lengths=batch.cu_seqlens,
        past_sequence_lengths=batch.past_lens,
        block_table=batch.block_tables,
        slot_mapping=slots,
        position_ids=positions.astype(np.int64),
        # One row of logits at least: not every kernel takes none.
        logit_indices=batch.logit_indices if batch.logit_indices.size else np.zeros(1, np.int64),
        attention_metadata=bounds,
        graph_key=None,
    )


def bucket_of(num_seqs: int) -> int:
    """The sequences that a decode step of so many is padded to."""
    return next(size for size in BUCKETS if size >= num_seqs)


def _decode(
    batch: RaggedBatch,
    slots: NDArray[np.int32],
    longest: int,
    block_size: int,
    max_context: int,
) -> PagedInputs:
    """Rows behind the batch's read the first token of block 0 and write nothing."""
    num_seqs = batch.num_seqs
    bucket = bucket_of(num_seqs)
    bound = length_bucket(longest, max_context)
    width = -(-bound // block_size)
    table = np.full((bucket, width), -1, np.int32)
    table[num_seqs:, 0] = 0
    used = min(width, batch.block_tables.shape[1])
    table[:num_seqs, :used] = batch.block_tables[:, :used]
    pad = bucket - num_seqs
    return PagedInputs(
        input_ids=np.pad(batch.input_ids, (0, pad)),
        cumulative_sequence_lengths=np.arange(bucket + 1, dtype=np.int32),
        past_sequence_lengths=np.pad(batch.past_lens, (0, pad)),
        block_table=table,
        slot_mapping=np.pad(slots, (0, pad), constant_values=-1),
        position_ids=np.pad(batch.past_lens, (0, pad)).astype(np.int64),
        logit_indices=np.arange(bucket),
        attention_metadata=np.array([1, bound], np.int32),
        graph_key=decode_key(bucket, bound),
    )
