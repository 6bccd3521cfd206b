"""Properties of the scheduler and the cache over random arrivals, lengths, stops and aborts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import ContextLengthExceeded, InvalidRequest
from engines.llm.engine import LLMEngine
from engines.llm.kv_cache import KVCache
from engines.llm.sampling_params import SamplingParams
from engines.llm.scheduler import SchedulerConfig
from engines.llm.sequence import FinishReason, Sequence
from engines.llm.snapshot_cache import SnapshotCache
from tests.engines.fakes import HashRunner

EOS = 3


@dataclass(frozen=True)
class Arrival:
    at_step: int
    prompt: tuple[int, ...]
    sampling: SamplingParams
    abort_after: int | None


def make_engine(
    runner: HashRunner,
    *,
    limit_tokens: int = 10_000,
    max_num_seqs: int = 2,
    max_draft_tokens: int = 0,
    half_chunk_at: int | None = None,
) -> LLMEngine:
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_context=runner.max_context,
        prefill_chunk=8,
        prefill_chunk_streaming=4,
        half_chunk_at=half_chunk_at,
        max_draft_tokens=max_draft_tokens,
        eos_token_ids=frozenset({EOS}),
    )
    limit = limit_tokens * runner.bytes_per_token
    return LLMEngine(runner, config, slot_cache(runner, limit), "test")


def slot_cache(runner: HashRunner, limit: int) -> KVCache:
    return SnapshotCache(runner, limit) if runner.bytes_per_slot else KVCache(runner, limit)


def run_alone(
    prompt: tuple[int, ...], sampling: SamplingParams, habit: float = 0.0, bytes_per_slot: int = 0
) -> list[int]:
    """The same sequence in an engine of its own, its prompt in one piece."""
    runner = HashRunner(num_slots=1, habit=habit, bytes_per_slot=bytes_per_slot)
    config = SchedulerConfig(
        max_num_seqs=1,
        max_context=runner.max_context,
        prefill_chunk=runner.max_context,
        eos_token_ids=frozenset({EOS}),
    )
    engine = LLMEngine(runner, config, slot_cache(runner, 100_000), "test")
    engine.add(Sequence.from_prompt(0, list(prompt), sampling))
    tokens = []
    while engine.has_work:
        tokens += [out.token_id for out in engine.step() if out.token_id is not None]
    return tokens


def drive(engine: LLMEngine, arrivals: list[Arrival]) -> dict[int, list[int]]:
    """Run all arrivals to their ends, checking the cache after every step."""
    tokens: dict[int, list[int]] = {}
    ended: dict[int, FinishReason] = {}
    pending = sorted(enumerate(arrivals), key=lambda item: item[1].at_step)
    step = 0
    while pending or engine.has_work:
        while pending and pending[0][1].at_step <= step:
            seq_id, arrival = pending.pop(0)
            engine.add(Sequence.from_prompt(seq_id, list(arrival.prompt), arrival.sampling))
            tokens[seq_id] = []
        for seq_id, arrival in enumerate(arrivals):
            if seq_id in tokens and step == arrival.at_step + (arrival.abort_after or 10_000):
                engine.abort(seq_id)
        for output in engine.step():
            assert output.seq_id not in ended, "a finished sequence got a token"
            if output.token_id is not None:
                tokens[output.seq_id].append(output.token_id)
            if output.finish_reason is not None:
                ended[output.seq_id] = output.finish_reason
        engine.scheduler.cache.check_integrity()
        step += 1
        assert step < 10_000, "the engine does not come to an end"
    assert engine.stats().num_running == engine.stats().num_waiting == 0
    aborted = {i for i, arrival in enumerate(arrivals) if arrival.abort_after is not None}
    assert set(range(len(arrivals))) - aborted <= ended.keys(), "a sequence was lost"
    return tokens


# Few distinct tokens and shared beginnings, so that prefixes are found often.
SYSTEM = tuple(range(10, 31))
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 20),
    temperature=st.sampled_from([0.0, 1.0]),
    top_k=st.sampled_from([0, 5]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 3),
    ignore_eos=st.booleans(),
)
arrivals = st.lists(
    st.builds(
        Arrival,
        at_step=st.integers(0, 30),
        prompt=st.tuples(
            st.integers(0, len(SYSTEM)), st.lists(st.integers(4, 6), min_size=1, max_size=25)
        ).map(lambda parts: (*SYSTEM[: parts[0]], *parts[1])),
        sampling=samplings,
        abort_after=st.one_of(st.none(), st.none(), st.integers(1, 20)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=120, deadline=None)
@given(arrivals, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_neighbours_joins_leaves_and_reuse_do_not_change_a_token(
    batch, max_num_seqs, spare, decodes_from_first
):
    num_slots = max_num_seqs + spare - 1
    runner = HashRunner(num_slots=num_slots, decodes_from_first=decodes_from_first)
    tokens = drive(make_engine(runner, max_num_seqs=max_num_seqs), batch)
    for seq_id, arrival in enumerate(batch):
        alone = run_alone(arrival.prompt, arrival.sampling)
        if arrival.abort_after is None:
            assert tokens[seq_id] == alone
        else:
            assert tokens[seq_id] == alone[: len(tokens[seq_id])]


@settings(max_examples=80, deadline=None)
@given(arrivals, st.integers(64, 110))
def test_a_cache_that_is_too_small_delays_sequences_but_loses_none(batch, limit_tokens):
    runner = HashRunner(num_slots=5)
    engine = make_engine(runner, limit_tokens=limit_tokens, max_num_seqs=3)
    tokens = drive(engine, batch)
    for seq_id, arrival in enumerate(batch):
        if arrival.abort_after is None:
            assert tokens[seq_id] == run_alone(arrival.prompt, arrival.sampling)


@settings(max_examples=120, deadline=None)
@given(arrivals, st.integers(64, 110), st.integers(1, 6))
def test_drafts_change_no_token_whatever_is_accepted(batch, limit_tokens, max_draft_tokens):
    runner = HashRunner(num_slots=4, habit=0.8)
    engine = make_engine(
        runner, limit_tokens=limit_tokens, max_num_seqs=2, max_draft_tokens=max_draft_tokens
    )
    tokens = drive(engine, batch)
    for seq_id, arrival in enumerate(batch):
        alone = run_alone(arrival.prompt, arrival.sampling, habit=0.8)
        if arrival.abort_after is None:
            assert tokens[seq_id] == alone
        else:
            assert tokens[seq_id] == alone[: len(tokens[seq_id])]


def test_a_repeated_prompt_is_computed_once():
    engine = make_engine(HashRunner())
    prompt = list(range(10, 40))
    greedy = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    for seq_id in range(2):
        engine.add(Sequence.from_prompt(seq_id, prompt, greedy))
        while engine.has_work:
            outputs = engine.step()
    assert outputs[-1].num_cached_tokens == len(prompt) - 2
    assert engine.stats().prefix_cache_hits == len(prompt) - 2


def decode_windows(runner):
    """First slot and number of slots of every decode step."""
    steps = [batch for batch in runner.batches if batch.input_ids.shape[1] == 1]
    return {(batch.first_slot, batch.num_slots) for batch in steps}


PROMPTS = [tuple(range(start, start + 12)) for start in (10, 30, 50, 70)]
LONG = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)


def test_a_sequence_alone_is_one_row_wherever_it_is_and_nothing_is_moved():
    runner = HashRunner(num_slots=4)
    tokens = drive(
        make_engine(runner),
        [Arrival(20 * at, prompt, LONG, None) for at, prompt in enumerate(PROMPTS[:3])],
    )
    assert decode_windows(runner) == {(0, 1), (1, 1), (2, 1)}
    assert runner.num_swaps == 0
    for seq_id, prompt in enumerate(PROMPTS[:3]):
        assert tokens[seq_id] == run_alone(prompt, LONG)


@pytest.mark.parametrize("bytes_per_token", [10, 1 << 25])
def test_sequences_run_behind_a_prefix_that_nobody_needs(bytes_per_token):
    runner = HashRunner(num_slots=4, bytes_per_token=bytes_per_token)
    starts = (0, 20, 20, 20)
    drive(
        make_engine(runner, max_num_seqs=3),
        [Arrival(at, prompt, LONG, None) for at, prompt in zip(starts, PROMPTS, strict=True)],
    )
    assert {first for first, size in decode_windows(runner) if size == 3} == {1}
    assert runner.num_swaps == 0


def test_where_steps_begin_at_the_first_slot_even_large_prefixes_make_way():
    runner = HashRunner(num_slots=4, bytes_per_token=1 << 25, decodes_from_first=True)
    starts = (0, 20, 20, 20)
    drive(
        make_engine(runner, max_num_seqs=3),
        [Arrival(at, prompt, LONG, None) for at, prompt in zip(starts, PROMPTS, strict=True)],
    )
    assert decode_windows(runner) == {(0, 1), (0, 2), (0, 3)}


def test_running_sequences_get_a_token_after_every_chunk_of_a_long_prompt():
    runner = HashRunner()
    engine = make_engine(runner)
    greedy = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    engine.add(Sequence.from_prompt(0, [5, 6], greedy))
    engine.step()
    engine.add(Sequence.from_prompt(1, list(range(10, 40)), greedy))
    for _ in range(10):
        engine.step()
    sizes = [batch.input_ids.shape[1] for batch in runner.batches[1:]]
    for first, second in pairwise(sizes):
        assert first == 1 or second == 1, "two chunks in a row stall the running sequence"
    assert max(sizes) == 4


def test_a_prompt_never_ends_in_a_chunk_of_one_token():
    for length in range(2, 40):
        runner = HashRunner()
        engine = make_engine(runner)
        engine.add(
            Sequence.from_prompt(0, list(range(4, 4 + length)), SamplingParams(max_tokens=1))
        )
        while engine.has_work:
            engine.step()
        assert min(batch.input_ids.shape[1] for batch in runner.batches) >= 2


def test_an_answer_ends_when_the_context_is_full():
    engine = make_engine(HashRunner(max_context=16))
    sampling = SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)
    engine.add(Sequence.from_prompt(0, [5] * 10, sampling))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert len(outputs) == 6
    assert outputs[-1].finish_reason is FinishReason.LENGTH


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers():
    engine = make_engine(HashRunner(max_context=16))
    with pytest.raises(ContextLengthExceeded, match=r"has 16 tokens, .* a context of 16"):
        engine.add(Sequence.from_prompt(0, [5] * 16, SamplingParams()))


def test_token_ids_outside_the_vocabulary_are_refused():
    engine = make_engine(HashRunner())
    with pytest.raises(InvalidRequest, match="token id 97"):
        engine.add(Sequence.from_prompt(0, [5, 97], SamplingParams()))
    with pytest.raises(InvalidRequest, match="logit_bias has the token id -1"):
        engine.add(Sequence.from_prompt(0, [5], SamplingParams(logit_bias={-1: 1.0})))


def test_prompt_logprobs_come_whole_with_the_first_token_and_without_reuse():
    engine = make_engine(HashRunner())
    prompt = list(range(10, 31))
    plain = SamplingParams(max_tokens=1, temperature=0)
    echo = SamplingParams(max_tokens=0, prompt_logprobs=True, num_logprobs=2)
    for seq_id, sampling in enumerate([plain, echo]):
        engine.add(Sequence.from_prompt(seq_id, prompt, sampling))
        while engine.has_work:
            outputs = engine.step()
    (output,) = outputs
    assert output.token_id is None
    assert output.num_cached_tokens == 0
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert [entry.token_id for entry in output.prompt_logprobs[1:] if entry] == prompt[1:]
    assert all(len(entry.top) == 2 for entry in output.prompt_logprobs[1:] if entry)
