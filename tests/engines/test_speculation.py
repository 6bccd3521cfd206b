"""Drafts by prompt lookup: what is proposed, when it stops, and what it saves."""

from __future__ import annotations

from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.scheduler import SchedulerConfig
from engines.llm.sequence import Sequence
from engines.llm.speculation import PromptLookup
from tests.engines.fakes import HashRunner
from tests.engines.test_sampler import Among


def sequence(token_ids: list[int], seq_id: int = 0) -> Sequence:
    return Sequence.from_prompt(seq_id, token_ids, SamplingParams())


def make_engine(runner: HashRunner, max_draft_tokens: int, max_num_seqs: int = 2) -> LLMEngine:
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_context=runner.max_context,
        max_draft_tokens=max_draft_tokens,
    )
    return LLMEngine(runner, config, 10_000, "test")


def run(engine: LLMEngine, sampling: SamplingParams) -> tuple[list[int], int]:
    """The tokens of one sequence, and in how many steps they came."""
    engine.add(Sequence.from_prompt(0, [10, 11, 12, 13], sampling))
    tokens, num_steps = [], 0
    while engine.has_work:
        tokens += [output.token_id for output in engine.step()]
        num_steps += 1
    return tokens, num_steps


def test_a_draft_is_what_followed_the_latest_earlier_place():
    lookup = PromptLookup(max_draft_tokens=3)
    assert lookup.propose(sequence([1, 2, 3, 7, 1, 2, 3, 8, 9, 5, 1, 2, 3]), limit=9) == [8, 9, 5]


def test_a_draft_is_no_longer_than_the_answer_may_become():
    lookup = PromptLookup(max_draft_tokens=8)
    assert lookup.propose(sequence([1, 2, 3, 7, 8, 9, 1, 2, 3]), limit=2) == [7, 8]
    assert lookup.propose(sequence([1, 2, 3, 7, 8, 9, 1, 2, 3], seq_id=1), limit=0) == []


def test_a_loop_is_drafted_beyond_its_own_end():
    lookup = PromptLookup(max_draft_tokens=4)
    assert lookup.propose(sequence([1, 2, 3, 1, 2, 3]), limit=4) == [1, 2, 3, 1]


def test_text_without_repetition_has_no_draft():
    assert PromptLookup(max_draft_tokens=4).propose(sequence(list(range(50))), limit=4) == []


def test_tokens_that_come_later_are_found_as_well():
    lookup, seq = PromptLookup(max_draft_tokens=4), sequence([1, 2, 3, 4])
    assert lookup.propose(seq, limit=4) == []
    seq.token_ids += [9, 1, 2, 3]
    assert lookup.propose(seq, limit=4) == [4, 9, 1, 2]


def test_drafts_that_fail_stop_and_are_tried_again_later():
    lookup, seq = PromptLookup(max_draft_tokens=4), sequence([1, 2, 3, 1, 2, 3])
    tried = []
    for step in range(200):
        draft = lookup.propose(seq, limit=4)
        if draft:
            tried.append(step)
            lookup.record(seq, len(draft), 0)
    assert 3 <= len(tried) <= 12
    assert tried[-1] > 100


def test_drafts_grow_where_they_are_accepted():
    lookup, seq = PromptLookup(max_draft_tokens=12), sequence([1, 2, 3] * 8)
    lengths = []
    for _ in range(12):
        draft = lookup.propose(seq, limit=12)
        lengths.append(len(draft))
        seq.token_ids += [*draft, seq.token_ids[-3]]
        lookup.record(seq, len(draft), len(draft))
    assert lengths[-1] > lengths[0]


def test_a_repetitive_answer_takes_fewer_steps_and_is_the_same():
    sampling = SamplingParams(max_tokens=50, temperature=0, ignore_eos=True)
    plain, num_plain = run(make_engine(HashRunner(habit=1.0), 0), sampling)
    engine = make_engine(HashRunner(habit=1.0), 4)
    drafted, num_drafted = run(engine, sampling)
    assert drafted == plain
    assert num_drafted < num_plain / 2
    stats = engine.stats()
    assert 0 < stats.accepted_draft_tokens <= stats.draft_tokens
    assert stats.generation_tokens == 50


def test_a_seeded_answer_with_penalties_and_logprobs_is_the_same_token_for_token():
    sampling = SamplingParams(
        max_tokens=50, temperature=0.7, presence_penalty=0.5, repetition_penalty=1.05, seed=3,
        top_p=0.9, num_logprobs=2, ignore_eos=True,
    )  # fmt: skip
    outputs = []
    for max_draft_tokens in (0, 5):
        engine = make_engine(HashRunner(habit=0.9), max_draft_tokens)
        engine.add(Sequence.from_prompt(0, [10, 11, 12, 13], sampling))
        outputs.append([])
        while engine.has_work:
            outputs[-1] += [(o.token_id, o.logprobs, o.finish_reason) for o in engine.step()]
    assert engine.stats().accepted_draft_tokens > 0
    assert outputs[0] == outputs[1]


def test_streams_that_share_the_engine_are_not_drafted():
    runner = HashRunner(habit=1.0)
    engine = make_engine(runner, 4)
    sampling = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    for seq_id in range(2):
        engine.add(Sequence.from_prompt(seq_id, [10 + seq_id, 11, 12], sampling))
    while (
        engine.scheduler.waiting or engine.scheduler.prefilling or len(engine.scheduler.running) > 1
    ):
        engine.step()
    assert engine.stats().draft_tokens == 0


class Forced(Among):
    """Tells of the tokens that it leaves no choice of."""

    def forced_tokens(self):
        tokens = []
        for allowed in self.allowed[len(self.accepted) :]:
            if allowed is None or len(allowed) > 1:
                break
            tokens += allowed
        return tokens


def test_what_a_grammar_forces_is_drafted_and_changes_no_token():
    def write(max_draft_tokens):
        constraint = Forced({5, 6}, {7}, {8}, {9}, {5, 6}, {4}, {3}, *[None] * 9)
        engine = make_engine(HashRunner(), max_draft_tokens)
        sampling = SamplingParams(max_tokens=9, temperature=1, seed=3)
        engine.add(Sequence.from_prompt(0, [10, 11, 12, 13], sampling, constraint))
        tokens, num_steps = [], 0
        while engine.has_work:
            tokens += [output.token_id for output in engine.step()]
            num_steps += 1
        return tokens, num_steps

    plain, num_plain_steps = write(0)
    drafted, num_steps = write(8)
    assert drafted == plain
    assert plain[1:4] == [7, 8, 9]
    assert num_steps <= num_plain_steps - 4
    assert write(2)[0] == plain, "a longer run of forced tokens is drafted in parts"
