"""The size of a chunk: bounded, shorter behind a long context, and never with a tail of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.llm.chunks import chunk_size
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence


def sequence(num_tokens: int, num_computed: int) -> Sequence:
    seq = Sequence.from_prompt(0, [1] * num_tokens, SamplingParams(max_tokens=1))
    seq.num_computed_tokens = num_computed
    return seq


@pytest.mark.parametrize(
    ("past", "half_at", "expected"),
    [
        (0, None, 64),
        (9000, None, 64),
        (0, 1024, 64),
        (1024, 1024, 32),
        (2048, 1024, 16),
        (9000, 1024, 8),
    ],
)
def test_a_chunk_is_half_as_long_behind_the_tokens_that_double_its_cost(past, half_at, expected):
    assert chunk_size(sequence(10_000, past), 64, half_at, 128) == expected


@pytest.mark.parametrize(
    ("remaining", "most", "expected"),
    [(80, 128, 80), (81, 128, 64), (80, 64, 64), (72, 72, 72), (65, 64, 63), (64, 64, 64)],
)
def test_a_short_rest_is_taken_along_as_far_as_any_chunk_may_go(remaining, most, expected):
    assert chunk_size(sequence(remaining, 0), 64, None, most) == expected


def test_a_prompt_of_two_chunks_does_not_end_in_a_third_for_being_shortened():
    assert chunk_size(sequence(128, 0), 64, 1024, 128) == 64
    assert chunk_size(sequence(128, 64), 64, 1024, 128) == 64


@given(st.integers(2, 300), st.integers(2, 200), st.one_of(st.none(), st.integers(1, 400)))
def test_a_prompt_is_computed_whole_in_chunks_of_two_or_more(num_tokens, chunk, half_at):
    seq, sizes, most = sequence(num_tokens, 0), [], max(chunk, 100)
    while seq.num_computed_tokens < num_tokens:
        sizes.append(chunk_size(seq, chunk, half_at, most))
        seq.num_computed_tokens += sizes[-1]
    assert seq.num_computed_tokens == num_tokens
    assert all(2 <= size <= most for size in sizes)
