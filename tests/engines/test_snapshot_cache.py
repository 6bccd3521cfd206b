"""States that cannot be rolled back: no wrong reuse, no idle run, no lost copy changes a token.

The fake runner keeps for each slot a hash of every token that ran there since the first. A slot
that ran idle, was cut to fewer tokens or moved without its state gives other tokens from then on.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.scheduler import SchedulerConfig
from engines.llm.sequence import Sequence
from engines.llm.snapshot_cache import SnapshotCache
from engines.llm.snapshots import MAX_SNAPSHOTS, MIN_PROMPT, TAIL, Snapshot, cut, thin_out
from tests.engines.fakes import HashRunner
from tests.engines.test_scheduler import arrivals, drive, make_engine, run_alone

STATE = 300  # bytes, as much as thirty tokens
GREEDY = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)


def assert_as_alone(tokens, batch):
    for seq_id, arrival in enumerate(batch):
        alone = run_alone(arrival.prompt, arrival.sampling, bytes_per_slot=STATE)
        if arrival.abort_after is None:
            assert tokens[seq_id] == alone
        else:
            assert tokens[seq_id] == alone[: len(tokens[seq_id])]


@settings(max_examples=150, deadline=None)
@given(arrivals, st.integers(1, 3), st.integers(1, 3))
def test_neighbours_joins_leaves_and_reuse_do_not_change_a_token(batch, max_num_seqs, spare):
    runner = HashRunner(num_slots=max_num_seqs + spare - 1, bytes_per_slot=STATE)
    engine = make_engine(runner, max_num_seqs=max_num_seqs)
    assert isinstance(engine.scheduler.cache, SnapshotCache)
    assert_as_alone(drive(engine, batch), batch)


@settings(max_examples=150, deadline=None)
@given(arrivals, st.integers(94, 220))
def test_a_cache_that_is_too_small_delays_sequences_but_loses_none(batch, limit_tokens):
    runner = HashRunner(num_slots=5, bytes_per_slot=STATE)
    engine = make_engine(runner, limit_tokens=limit_tokens, max_num_seqs=3)
    assert_as_alone(drive(engine, batch), batch)


def answer(engine: LLMEngine, seq_id: int, prompt: list[int]) -> tuple[list[int], int]:
    """The tokens of one prompt, and how many of it were reused."""
    engine.add(Sequence.from_prompt(seq_id, prompt, GREEDY))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
        engine.scheduler.cache.check_integrity()
    return [output.token_id for output in outputs], outputs[-1].num_cached_tokens


def long_engine(**options) -> LLMEngine:
    runner = HashRunner(num_slots=4, max_context=200, bytes_per_slot=STATE)
    config = SchedulerConfig(max_num_seqs=2, max_context=200, prefill_chunk=32, **options)
    return LLMEngine(runner, config, SnapshotCache(runner, 100_000), "test")


def test_a_prompt_that_goes_on_where_an_answer_ended_is_not_computed_again():
    engine = long_engine()
    prompt = list(range(4, 44))
    tokens, _ = answer(engine, 0, prompt)
    _, num_reused = answer(engine, 1, [*prompt, *tokens, 7, 8, 9])
    assert num_reused == len(prompt) + len(tokens) - 1  # the last token was not computed


def test_a_repeated_prompt_is_reused_up_to_the_tail_that_asks_for_an_answer():
    engine = long_engine()
    prompt = [4 + i % 80 for i in range(100)]
    tokens, _ = answer(engine, 0, prompt)
    again, num_reused = answer(engine, 1, prompt)
    assert again == tokens
    assert num_reused == len(prompt) - TAIL


def test_a_prefix_shared_by_three_prompts_is_computed_twice_and_then_reused_whole():
    engine = long_engine()
    system = [4 + i % 80 for i in range(50)]
    reused = [answer(engine, i, [*system, *([10 + i] * 40)])[1] for i in range(3)]
    assert reused == [0, 32, 50]  # a chunk's end; then where the second parted from the first


def test_a_copy_is_given_up_before_a_sequence_has_to_wait():
    prompt = list(range(4, 84))
    expected, _ = answer(long_engine(), 0, prompt)
    limit = STATE + 10 * (len(prompt) + GREEDY.max_tokens)  # one state and the tokens of one
    runner = HashRunner(num_slots=3, max_context=200, bytes_per_slot=STATE)
    config = SchedulerConfig(max_num_seqs=1, max_context=200, prefill_chunk=16)
    engine = LLMEngine(runner, config, SnapshotCache(runner, limit), "test")
    assert answer(engine, 0, prompt) == (expected, 0)
    assert answer(engine, 1, prompt)[0] == expected


@pytest.mark.parametrize(
    ("computed", "total", "size", "parting", "expected"),
    [
        (0, 40, 32, None, 32),
        (0, 100, 32, None, 32),
        (64, 100, 32, None, 28),
        (92, 100, 8, None, 8),
        (0, 100, 32, 20, 20),
        (0, 100, 32, 1, 32),
        (0, 22, 22, 20, 20),
        (0, 21, 21, 20, 21),
        (60, 100, 32, 70, 10),
        (70, 100, 32, 70, 22),
    ],
)
def test_chunks_end_where_a_copy_is_worth_most(computed, total, size, parting, expected):
    assert cut(computed, total, size, parting) == expected


@given(st.integers(0, 200), st.integers(2, 200), st.integers(2, 64), st.integers(0, 200))
def test_a_chunk_and_what_it_leaves_have_two_tokens_at_least(computed, left, size, parting):
    total = computed + left
    size = min(size, left)
    if left - size == 1:
        return  # the scheduler sees to that before
    found = cut(computed, total, size, parting)
    assert 2 <= found <= size
    assert left - found != 1
    assert total >= MIN_PROMPT or found in (size, parting - computed)


def test_of_many_copies_the_first_and_the_last_stay():
    kept = thin_out([Snapshot(position, None) for position in range(10, 400, 10)])
    assert len(kept) == MAX_SNAPSHOTS
    assert (kept[0].position, kept[-1].position) == (10, 390)
