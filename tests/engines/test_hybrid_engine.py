"""Compiled Qwen3.5 under the real scheduler: states that cannot be rolled back change no token."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from engines.errors import EngineIncompatible
from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.load import EngineOptions, load_llm_engine
from engines.store import EngineFolder
from tests.engines.test_real_engine import NUM_PROMPTS, OPTIONS, compile_tiny, prompts, run

OpenEngine = Callable[..., LLMEngine]


@pytest.fixture(scope="module", params=["qwen3.5-fp32", "qwen3.5-int8", "qwen3-next-int8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory) -> EngineFolder:
    return compile_tiny(tmp_path_factory, *request.param.rsplit("-", 1))


@pytest.fixture
def open_engine(folder: EngineFolder) -> Iterator[OpenEngine]:
    opened: list[LLMEngine] = []

    def open_engine(**options) -> LLMEngine:
        opened.append(load_llm_engine(folder, EngineOptions(**(OPTIONS | options))))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


def test_each_sequence_gets_the_tokens_that_it_gets_alone(open_engine, folder):
    batch = prompts()
    crowd = run(
        open_engine(max_num_seqs=3), {0: [0, 1], 3: [2], 9: [3, 4], 15: [5], 30: [6, 7]}, batch
    )
    assert sum(outputs[0].num_cached_tokens for outputs in crowd.values()) > 0, "nothing was reused"
    tolerance = 0 if folder.manifest.precision == "int8" else 1e-3
    for index in range(NUM_PROMPTS):
        (alone,) = run(open_engine(max_num_seqs=1), {0: [index]}, batch).values()
        assert [o.token_id for o in crowd[index]] == [o.token_id for o in alone]
        for ours, theirs in zip(crowd[index], alone, strict=True):
            assert ours.logprobs.logprob == pytest.approx(
                theirs.logprobs.logprob, abs=tolerance, rel=0
            )


def test_a_small_cache_serves_all_with_the_same_tokens(open_engine):
    batch = prompts(1)
    runner = open_engine().runner
    limit = 4 * runner.bytes_per_slot + 200 * runner.bytes_per_token
    small = open_engine(max_num_seqs=4, kv_cache_memory=limit)
    crowd = run(small, {0: list(range(NUM_PROMPTS))}, batch)
    assert small.stats().kv_cache_bytes <= limit
    roomy = run(open_engine(max_num_seqs=4), {0: list(range(NUM_PROMPTS))}, batch)
    for index in range(NUM_PROMPTS):
        assert [o.token_id for o in crowd[index]] == [o.token_id for o in roomy[index]]


def test_a_conversation_goes_on_from_its_own_state(open_engine):
    greedy = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    first = np.random.default_rng(5).integers(4, 400, 90).tolist()
    engine, answers = open_engine(), []
    for seq_id in range(2):
        prompt = first if seq_id == 0 else [*first, *answers[0], 5, 6, 7]
        engine.add(Sequence.from_prompt(seq_id, prompt, greedy))
        outputs = []
        while engine.has_work:
            outputs += engine.step()
        answers.append([output.token_id for output in outputs])
    assert outputs[-1].num_cached_tokens == len(first) + 12 - 1
    fresh = open_engine()
    fresh.add(Sequence.from_prompt(0, prompt, greedy))
    tokens = []
    while fresh.has_work:
        tokens += [output.token_id for output in fresh.step()]
    assert tokens == answers[1]


def test_drafts_are_refused_by_name(folder):
    with pytest.raises(EngineIncompatible, match=r"takes no drafts: .* \(it is 4\)"):
        load_llm_engine(folder, EngineOptions(**OPTIONS, max_draft_tokens=4))
