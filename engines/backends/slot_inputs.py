"""A batch over slots as graphs take it: GroupQueryAttention's inputs, or the standard ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.backends.gpu_session import decode_key, length_bucket
from engines.llm.runner import Batch, IntArray
from engines.manifest import ChatSpec


@dataclass(frozen=True, slots=True)
class SlotInputs:
    """The graph's inputs but for the states.

    Decode steps of as many slots that look about as far have one `graph_key`, and may be replayed;
    they compute logits for idle slots too. `rows` are the rows of logits that the batch asked for.
    """

    on_device: dict[str, NDArray[Any]]
    on_host: dict[str, NDArray[Any]]
    graph_key: int | None
    rows: IntArray

    @property
    def num_logits(self) -> int:
        """Rows of logits that are computed: one at least, whether it is wanted or not."""
        return len(self.on_device["logit_indices"])


DescribeBatch = Callable[[Batch, int], SlotInputs]
"""The inputs of a batch, given the rows of a slot that may be looked at."""


def group_query_inputs(batch: Batch, num_rows: int) -> SlotInputs:
    """What a graph with GroupQueryAttention is told."""
    size = batch.input_ids.shape[1]
    key, longest = _graph_key(batch, num_rows)
    return SlotInputs(
        on_device={
            "input_ids": batch.input_ids,
            "seqlens_k": batch.past_lens + np.int32(size - 1),
            "logit_indices": _logit_indices(batch, key),
        },
        on_host={"total_sequence_length": np.array(longest, np.int32)},
        graph_key=key,
        rows=_rows(batch, key),
    )


def positioned_inputs(batch: Batch, num_rows: int) -> SlotInputs:
    """The same for a graph that is told where tokens stand."""
    inputs = group_query_inputs(batch, num_rows)
    return replace(inputs, on_device=inputs.on_device | {"position_ids": _positions(batch)})


def inputs_on_cuda(spec: ChatSpec) -> DescribeBatch:
    """What describes batches to the graph of a specification."""
    return positioned_inputs if spec.reads_positions else group_query_inputs


def standard_inputs(batch: Batch, num_rows: int) -> SlotInputs:
    """What a graph of standard operators is told: see `export.qwen.standard_attention`."""
    key, longest = _graph_key(batch, num_rows)
    past = batch.past_lens.astype(np.int64)
    # Prompts look in few lengths too, so that a plan prepares for few shapes.
    visible = longest if key is not None else length_bucket(longest, num_rows)
    return SlotInputs(
        on_device={
            "input_ids": batch.input_ids,
            "position_ids": _positions(batch),
            "write_indices": past,
            "cache_positions": np.arange(visible),
            "logit_indices": _logit_indices(batch, key),
        },
        on_host={},
        graph_key=key,
        rows=_rows(batch, key),
    )


def _positions(batch: Batch) -> IntArray:
    """Of each token in its own sequence, [n, S]."""
    positions: IntArray = batch.past_lens[:, None] + np.arange(batch.input_ids.shape[1])
    return positions


def _logit_indices(batch: Batch, graph_key: int | None) -> IntArray:
    if graph_key is not None:
        return np.arange(batch.num_slots)
    indices: IntArray = batch.logit_indices.astype(np.int64, copy=False)
    return indices if indices.size else np.zeros(1, np.int64)


def _rows(batch: Batch, graph_key: int | None) -> IntArray:
    return np.arange(len(batch.logit_indices)) if graph_key is None else batch.logit_indices


def _graph_key(batch: Batch, num_rows: int) -> tuple[int | None, int]:
    """The key of a decode step, and how far it looks; None and the exact length for a prompt."""
    num_slots, size = batch.input_ids.shape
    longest = int(batch.past_lens.max()) + size
    is_decode = size == 1 and batch.first_slot == 0
    if not is_decode:
        return None, longest
    bound = length_bucket(longest, num_rows)
    return decode_key(num_slots, bound), bound
