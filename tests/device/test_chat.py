"""The chat demo on a GPU: near the CPU's engine, the same alone and in a crowd, replayed or not."""

from __future__ import annotations

import pytest

from benchmarks.gpu.demo import compile_demo, measure_parity
from engines.backends.cuda import free_memory
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.load import EngineOptions, load_llm_engine

pytestmark = pytest.mark.gpu

# precision -> (top-1 agreement at least, mean KL divergence in nats at most)
BARS = {"fp16": (0.995, 1e-3), "bf16": (0.97, 1e-2), "int4": (0.9, 0.1)}
NUM_STREAMS = 24
MODEL_BYTES = 10 << 20


def assert_near(figures):
    least_top1, most_kl = BARS[figures.precision]
    assert figures.num_steps >= 1000
    assert figures.top1 >= least_top1
    assert figures.mean_kl <= most_kl


def prompts() -> list[list[int]]:
    """Half of them begin with the same 600 tokens, which fill two blocks."""
    system = [7 + index % 97 for index in range(600)]
    tails = [
        [11 + (index * 37 + place) % 90 for place in range(5 + 9 * index)] for index in range(24)
    ]
    return [system + tail if index % 2 else tail for index, tail in enumerate(tails)]


def answer(engine, batch, together: bool) -> dict[int, list[int]]:
    """Greedy answers to all prompts, at once or one after the other."""
    tokens: dict[int, list[int]] = {index: [] for index in range(len(batch))}
    groups = [list(enumerate(batch))] if together else [[item] for item in enumerate(batch)]
    for group in groups:
        for index, prompt in group:
            sampling = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True)
            engine.add(Sequence.from_prompt(index, prompt, sampling))
        while engine.has_work:
            for output in engine.step():
                tokens[output.seq_id].append(output.token_id)
            engine.scheduler.cache.check_integrity()
    return tokens


def assert_mostly_same(first, second):
    """Kernels round differently for other numbers of rows, which may turn a near tie."""
    same = sum(first[index] == second[index] for index in first)
    assert same >= 0.9 * len(first)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4"])
def test_a_cuda_engine_is_near_the_cpu_engine(gpu, work, precision):
    assert_near(measure_parity(work, "cuda", precision))


def test_a_cuda_engine_with_slots_is_near_the_cpu_engine(gpu, work):
    assert_near(measure_parity(work, "cuda", "fp16", kv_cache="slots"))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_plan_is_near_the_cpu_engine(tensorrt, work, precision):
    assert_near(measure_parity(work, "tensorrt", precision))


@pytest.mark.parametrize(
    ("target", "kv_cache"), [("cuda", "blocks"), ("cuda", "slots"), ("tensorrt", "auto")]
)
def test_a_crowd_hears_what_each_hears_alone(request, gpu, work, target, kv_cache):
    if target == "tensorrt":
        request.getfixturevalue("tensorrt")
    folder = compile_demo(work, target, "fp16", kv_cache)
    engine = load_llm_engine(folder, EngineOptions(rebuild=True))
    batch = prompts()
    crowd = answer(engine, batch, together=True)
    alone = answer(engine, batch, together=False)
    assert all(len(tokens) == 24 for tokens in crowd.values())
    assert_mostly_same(crowd, alone)
    assert engine.stats().prefix_cache_hits > 0
    engine.close()


def test_sampling_penalties_and_logprobs_fetch_whole_rows(gpu, work):
    engine = load_llm_engine(compile_demo(work, "cuda", "fp16"), EngineOptions())
    kinds = [
        {"temperature": 0.8, "top_k": 20},
        {"temperature": 1.0},
        {"temperature": 0.7, "presence_penalty": 1.0},
        {"temperature": 0.0, "num_logprobs": 5},
    ]
    for index, kind in enumerate(kinds):
        sampling = SamplingParams(max_tokens=16, seed=index, ignore_eos=True, **kind)
        engine.add(Sequence.from_prompt(index, [5, 6, 7, 8], sampling))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert len(outputs) == 16 * len(kinds)
    assert all(output.logprobs.logprob <= 0 for output in outputs if output.seq_id == 3)
    engine.close()


def test_the_cache_takes_its_share_and_gives_it_back(gpu, work):
    folder = compile_demo(work, "cuda", "bf16")
    before = free_memory()
    engine = load_llm_engine(folder, EngineOptions(gpu_memory_utilization=0.5))
    assert engine.stats().kv_cache_limit_bytes > MODEL_BYTES
    assert before - free_memory() <= 0.55 * gpu.total_memory
    engine.close()
    assert before - free_memory() < 2 << 30  # what the runtime keeps for itself
