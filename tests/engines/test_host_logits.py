"""Logits read through the maxima of their blocks, against the whole rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.host_logits import HostLogits
from engines.llm.sampler import Sampler
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence

BLOCK = 8
VOCAB = 320


def host_logits(values, num_tokens, positions, *, with_maxima=True):
    maxima = values.reshape(len(values), -1, BLOCK).max(axis=2) if with_maxima else None
    return HostLogits(values, num_tokens, np.asarray(positions), maxima)


@st.composite
def outputs(draw):
    """Rows with ties, padded with columns that are larger than any token."""
    num_rows = draw(st.integers(1, 4))
    num_tokens = draw(st.integers(BLOCK * 16, VOCAB))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    values = rng.integers(-20, 20, (num_rows, VOCAB)).astype(np.float32)
    if draw(st.booleans()):
        values += rng.standard_normal(values.shape).astype(np.float32)
    values[:, num_tokens:] = 1000
    positions = draw(st.permutations(range(num_rows)))[: draw(st.integers(1, num_rows))]
    return host_logits(values, num_tokens, positions)


@settings(max_examples=100, deadline=None)
@given(outputs())
def test_the_likeliest_token_is_that_of_the_whole_row(output):
    rows = np.arange(len(output.positions))
    expected = [int(output.logits(row).argmax()) for row in rows]
    assert output.argmax(rows).tolist() == expected
    bare = HostLogits(output.values, output.num_tokens, output.positions)
    assert bare.argmax(rows).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(outputs(), st.data())
def test_ordered_candidates_are_the_head_of_the_sorted_row(output, data):
    rows = np.arange(len(output.positions))
    k = data.draw(st.integers(1, output.num_candidates))
    token_ids, values = output.ordered_candidates(rows, k)
    for row in rows:
        logits = output.logits(row)
        expected = np.argsort(-logits, kind="stable")[:k]  # ties by id
        assert token_ids[row].tolist() == expected.tolist()
        assert values[row].tolist() == logits[expected].tolist()
        by_id, by_id_values = output.candidates(row, k)
        assert by_id.tolist() == sorted(expected.tolist())
        assert by_id_values.tolist() == logits[by_id].tolist()


@pytest.mark.parametrize("top_k", [1, 5])
@pytest.mark.parametrize("cuts", [{}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 0.0}])
def test_a_seeded_sequence_draws_the_same_alone_and_beside_others(top_k, cuts):
    values = np.random.default_rng(1).standard_normal((4, VOCAB)).astype(np.float32) * 3
    output = host_logits(values, VOCAB, range(4))

    def seqs():
        shared = {"seed": 3, "top_k": top_k, **cuts}
        others = [SamplingParams(seed=1, top_k=7), SamplingParams(seed=2), SamplingParams()]
        own = SamplingParams(**shared)
        return [Sequence.from_prompt(i, [1], p) for i, p in enumerate([*others, own])]

    together, alone = Sampler(VOCAB), Sampler(VOCAB)
    crowd, (*_, single) = seqs(), seqs()
    for _ in range(5):
        (expected,) = alone.sample(output, np.array([3]), [single])
        assert together.sample(output, np.arange(4), crowd)[3] == expected
