"""Properties of the scheduler over shared blocks: neighbours and reuse change no token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import ContextLengthExceeded
from engines.llm.block_cache import BlockCache
from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.scheduler import SchedulerConfig
from engines.llm.sequence import Sequence
from tests.engines.fake_blocks import HashBlockRunner
from tests.engines.test_scheduler import EOS, arrivals, drive, run_alone

GREEDY = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)


def make_engine(
    runner: HashBlockRunner, *, max_num_seqs: int = 3, max_draft_tokens: int = 0, chunk: int = 8
) -> LLMEngine:
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_context=runner.max_context,
        prefill_chunk=chunk,
        prefill_chunk_streaming=max(chunk // 2, 2),
        max_draft_tokens=max_draft_tokens,
        eos_token_ids=frozenset({EOS}),
    )
    return LLMEngine(runner, config, BlockCache(runner), "test")


def assert_same_as_alone(batch, tokens, habit=0.0):
    for seq_id, arrival in enumerate(batch):
        alone = run_alone(arrival.prompt, arrival.sampling, habit)
        if arrival.abort_after is None:
            assert tokens[seq_id] == alone
        else:
            assert tokens[seq_id] == alone[: len(tokens[seq_id])]


@settings(max_examples=120, deadline=None)
@given(arrivals, st.integers(1, 4), st.integers(2, 30))
def test_neighbours_joins_leaves_and_shared_blocks_change_no_token(batch, max_num_seqs, chunk):
    engine = make_engine(HashBlockRunner(num_blocks=64), max_num_seqs=max_num_seqs, chunk=chunk)
    assert_same_as_alone(batch, drive(engine, batch))


@settings(max_examples=120, deadline=None)
@given(arrivals, st.integers(16, 24), st.integers(2, 30))
def test_a_cache_that_is_too_small_delays_sequences_but_loses_none(batch, num_blocks, chunk):
    engine = make_engine(HashBlockRunner(num_blocks=num_blocks), max_num_seqs=4, chunk=chunk)
    assert_same_as_alone(batch, drive(engine, batch))


@settings(max_examples=80, deadline=None)
@given(arrivals, st.integers(16, 40), st.integers(1, 6))
def test_drafts_change_no_token_whatever_is_accepted(batch, num_blocks, max_draft_tokens):
    engine = make_engine(
        HashBlockRunner(num_blocks=num_blocks, habit=0.8), max_draft_tokens=max_draft_tokens
    )
    assert_same_as_alone(batch, drive(engine, batch), habit=0.8)


def finish(engine: LLMEngine, seq_id: int, prompt: list[int], sampling=GREEDY):
    engine.add(Sequence.from_prompt(seq_id, prompt, sampling))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
        engine.scheduler.cache.check_integrity()
    return outputs


def test_a_repeated_prompt_is_computed_but_for_its_last_block():
    runner = HashBlockRunner()
    engine = make_engine(runner, chunk=64)
    prompt = list(range(10, 31))  # five blocks and a token
    finish(engine, 0, prompt)
    computed = sum(batch.num_tokens for batch in runner.batches)
    outputs = finish(engine, 1, prompt)
    assert outputs[0].num_cached_tokens == 20
    again = sum(batch.num_tokens for batch in runner.batches) - computed
    assert again == computed - 20


def test_blocks_of_a_running_sequence_are_shared_as_they_fill():
    runner = HashBlockRunner()
    engine = make_engine(runner, chunk=64)
    prompt = list(range(10, 26))
    engine.add(Sequence.from_prompt(0, prompt, SamplingParams(max_tokens=30, ignore_eos=True)))
    engine.step()
    engine.step()
    engine.add(Sequence.from_prompt(1, [*prompt, 5], GREEDY))
    engine.step()
    tables = runner.batches[-1].block_tables
    assert tables[0, :4].tolist() == tables[1, :4].tolist()
    assert tables[0, 4] != tables[1, 4]
    engine.scheduler.cache.check_integrity()


def test_a_block_is_known_by_all_that_stands_before_it():
    """The same four tokens behind another beginning are another block."""
    engine = make_engine(HashBlockRunner(), chunk=64)
    finish(engine, 0, [10, 11, 12, 13, 20, 21, 22, 23, 5])
    outputs = finish(engine, 1, [14, 15, 16, 17, 20, 21, 22, 23, 5])
    assert outputs[0].num_cached_tokens == 0


def test_prompts_and_running_sequences_advance_in_one_run():
    runner = HashBlockRunner()
    engine = make_engine(runner, chunk=40)
    engine.add(Sequence.from_prompt(0, [5, 6, 7], SamplingParams(max_tokens=20, ignore_eos=True)))
    engine.step()
    for seq_id, size in ((1, 7), (2, 9)):
        engine.add(Sequence.from_prompt(seq_id, list(range(30, 30 + size)), GREEDY))
    outputs = engine.step()
    assert [output.seq_id for output in outputs] == [0, 1, 2]
    (batch,) = runner.batches[1:]
    assert (batch.cu_seqlens[1:] - batch.cu_seqlens[:-1]).tolist() == [1, 7, 9]
    assert batch.logit_indices.tolist() == [0, 7, 16]


def test_running_sequences_never_wait_for_a_long_prompt():
    runner = HashBlockRunner()
    engine = make_engine(runner, chunk=8)
    engine.add(Sequence.from_prompt(0, [5, 6], SamplingParams(max_tokens=30, ignore_eos=True)))
    engine.step()
    engine.add(Sequence.from_prompt(1, list(range(10, 50)), GREEDY))
    for _ in range(10):
        assert 0 in [output.seq_id for output in engine.step()]
    assert max(batch.num_tokens for batch in runner.batches[1:]) == 1 + 4


def test_prompt_logprobs_come_whole_in_a_crowd():
    engine = make_engine(HashBlockRunner(), chunk=8)
    prompt = list(range(10, 31))
    engine.add(Sequence.from_prompt(0, [5, 6], SamplingParams(max_tokens=30, ignore_eos=True)))
    echo = SamplingParams(max_tokens=0, prompt_logprobs=True, num_logprobs=2)
    engine.add(Sequence.from_prompt(1, prompt, echo))
    outputs = []
    while engine.has_work:
        outputs += [output for output in engine.step() if output.seq_id == 1]
    (output,) = outputs
    assert output.prompt_logprobs is not None
    assert [entry.token_id for entry in output.prompt_logprobs[1:] if entry] == prompt[1:]


def test_the_least_recently_used_prefix_goes_first_and_its_end_before_its_start():
    engine = make_engine(HashBlockRunner(num_blocks=16), chunk=64)
    one = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    finish(engine, 0, list(range(10, 27)), one)  # four full blocks each
    finish(engine, 1, list(range(30, 47)), one)
    finish(engine, 2, list(range(50, 87)), one)  # ten blocks, so two of the oldest go
    cached = finish(engine, 3, list(range(10, 27)), one)[0].num_cached_tokens
    assert cached == 8
    assert engine.stats().kv_cache_bytes <= engine.stats().kv_cache_limit_bytes


def test_a_prompt_larger_than_the_cache_is_refused():
    engine = make_engine(HashBlockRunner(num_blocks=4))
    with pytest.raises(ContextLengthExceeded, match=r"has 16 tokens, .* a context of 16"):
        engine.add(Sequence.from_prompt(0, [5] * 16, SamplingParams()))
