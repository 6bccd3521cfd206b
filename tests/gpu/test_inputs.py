"""What graphs are told of a batch: whatever is replayed under a key has the shapes of its key."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.backends.gpu_session import decode_key
from engines.backends.paged_inputs import MAX_SEQS, pack
from engines.backends.slot_inputs import group_query_inputs, standard_inputs
from engines.llm.runner import Batch, RaggedBatch

BLOCK_SIZE = 256


@st.composite
def decode_steps(draw):
    """The longest context, and steps whose sequences hold fewer tokens."""
    max_context = draw(st.integers(2, 20_000))
    past = st.lists(st.integers(0, max_context - 1), min_size=1, max_size=12)
    return max_context, draw(st.lists(past, min_size=2, max_size=12))


def paged_step(past: list[int]) -> RaggedBatch:
    num_seqs, most = len(past), max(past) // BLOCK_SIZE + 1
    table = np.arange(num_seqs * most, dtype=np.int32).reshape(num_seqs, most)
    return RaggedBatch(
        input_ids=np.ones(num_seqs, np.int64),
        cu_seqlens=np.arange(num_seqs + 1, dtype=np.int32),
        past_lens=np.array(past, np.int32),
        block_tables=table,
        logit_indices=np.arange(num_seqs),
    )


def slot_step(past: list[int]) -> Batch:
    return Batch(
        first_slot=0,
        input_ids=np.ones((len(past), 1), np.int64),
        past_lens=np.array(past, np.int32),
        logit_indices=np.arange(len(past)),
    )


@given(decode_steps())
def test_paged_steps_of_one_key_have_the_same_shapes_and_bounds(given_steps):
    max_context, steps = given_steps
    seen = {}
    for past in steps:
        inputs = pack(paged_step(past), BLOCK_SIZE, max_context)
        shapes = {name: array.shape for name, array in inputs.on_device().items()}
        place = shapes, inputs.attention_metadata.tolist()
        assert seen.setdefault(inputs.graph_key, place) == place
        _, bound = inputs.attention_metadata
        assert max(past) < bound <= max_context
        assert bound <= inputs.block_table.shape[1] * BLOCK_SIZE
        padding = slice(len(past), None)
        assert (inputs.slot_mapping[padding] == -1).all(), "padding writes nothing"
        assert (inputs.block_table[padding, 0] == 0).all(), "and reads what is there"


@given(decode_steps())
def test_steps_over_slots_of_one_key_have_the_same_shapes(given_steps):
    max_context, steps = given_steps
    for describe in (group_query_inputs, standard_inputs):
        seen = {}
        for past in steps:
            inputs = describe(slot_step(past), max_context + 1)
            shapes = {name: array.shape for name, array in inputs.on_device.items()}
            place = shapes, {name: array.tolist() for name, array in inputs.on_host.items()}
            assert seen.setdefault(inputs.graph_key, place) == place


def test_keys_are_numbers_that_a_runtime_takes():
    assert decode_key(MAX_SEQS, 2_000_000) < 2**31
    assert decode_key(1, 1024) != decode_key(1, 1500)
