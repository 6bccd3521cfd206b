"""The whole engine over blocks with only the last kernel replaced: its tokens are the CPU's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.backends.cuda import Stream
from engines.backends.gpu_paged import GpuPagedRunner, PagedLimits
from engines.errors import EngineIncompatible
from engines.llm.block_cache import BlockCache
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from engines.load import EngineOptions, load_llm_engine
from engines.load_gpu import open_paged as open_paged_runner
from tests.engines.test_real_engine import NUM_PROMPTS, prompts, run
from tests.gpu.reference_session import ReferenceSession

ARRIVALS = {0: [0, 1], 2: [2], 5: [3, 4], 9: [5], 14: [6, 7]}


def open_paged(folder, *, num_blocks=40, max_num_seqs=4, chunk=32, block_size=16):
    spec = folder.manifest.chat
    session = ReferenceSession(folder.path / spec.graph)
    limits = PagedLimits(
        num_blocks=num_blocks,
        max_seqs=max_num_seqs,
        max_tokens=chunk + max_num_seqs,
        max_context=spec.max_context,
        block_size=block_size,
    )
    runner = GpuPagedRunner(session, Stream(), spec, limits)
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_context=spec.max_context,
        prefill_chunk=chunk,
        prefill_chunk_streaming=chunk // 2,
    )
    return LLMEngine(runner, config, BlockCache(runner), "host"), session


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for seq_id, outputs in found.items():
        theirs = expected[seq_id]
        assert [o.token_id for o in outputs] == [o.token_id for o in theirs]
        for ours, their in zip(outputs, theirs, strict=True):
            assert ours.logprobs.logprob == pytest.approx(their.logprobs.logprob, abs=1e-4)


@pytest.mark.parametrize("family", ["qwen1", "qwen2", "qwen3", "qwen2-moe", "qwen3-moe"])
def test_a_crowd_over_blocks_says_what_the_cpu_engine_says(host_cuda, compile_tiny, family):
    """Joins, leaves, shared prefixes, chunks beside decode steps, padded buckets, full rows."""
    batch = prompts()
    cpu = load_llm_engine(compile_tiny(family), EngineOptions(num_threads=1, max_num_seqs=4))
    expected = run(cpu, dict(ARRIVALS), batch)
    cpu.close()
    folder = compile_tiny(family, "cuda", "blocks")
    assert folder.manifest.chat.reads_positions == (family == "qwen1"), "it scales its queries"
    engine, session = open_paged(folder)
    found = run(engine, dict(ARRIVALS), batch)
    assert_same(found, expected)
    assert sum(outputs[0].num_cached_tokens for outputs in found.values()) > 0
    assert None in session.keys, "some run held a prompt"
    assert any(key is not None for key in session.keys), "and some could be replayed"
    engine.close()


def test_a_small_cache_delays_and_loses_nothing(host_cuda, compile_tiny):
    batch = prompts(1)
    folder = compile_tiny("qwen3", "cuda", "blocks")
    roomy, _ = open_paged(folder)
    expected = run(roomy, {0: list(range(NUM_PROMPTS))}, batch)
    roomy.close()
    small, _ = open_paged(folder, num_blocks=16)
    assert_same(run(small, {0: list(range(NUM_PROMPTS))}, batch), expected)
    small.close()


def test_a_replayed_step_reads_where_the_first_one_read(host_cuda, compile_tiny):
    """Addresses and shapes of a bucket never change, whoever is in it."""
    folder = compile_tiny("qwen2", "cuda", "blocks")
    engine, session = open_paged(folder, max_num_seqs=8)
    seen: dict[int, list[tuple[object, ...]]] = {}
    bind, execute = session.bind, session.run

    def recording_run(binding, graph_key):
        if graph_key is not None:
            feeds, _ = binding
            place = tuple((name, a.ctypes.data, a.shape) for name, a in sorted(feeds.items()))
            seen.setdefault(graph_key, []).append(place)
        execute(binding, graph_key)

    session.bind, session.run = bind, recording_run
    run(engine, {0: [0, 1, 2], 4: [3, 4]}, prompts())
    engine.close()
    assert len(seen) >= 2
    assert all(len(set(places)) == 1 for places in seen.values())
    assert max(len(places) for places in seen.values()) > 3


def test_a_run_of_more_sequences_than_the_kernel_takes_is_refused():
    with pytest.raises(ValueError, match="max_num_seqs is 257, but PagedAttention takes 256"):
        PagedLimits(num_blocks=1, max_seqs=257, max_tokens=1, max_context=1)


def test_the_cache_takes_what_weights_and_work_space_leave(host_cuda, compile_tiny):
    folder = compile_tiny("qwen3", "cuda", "blocks")
    spec = folder.manifest.chat
    host_cuda.total_memory = 64 << 20
    options = EngineOptions(max_num_seqs=4, gpu_memory_utilization=0.5)
    session = ReferenceSession(folder.path / spec.graph)
    opened = open_paged_runner(session, Stream(), spec, options, host_cuda.total_memory)
    assert opened.kv_cache.limit_bytes == 4 * 256 * opened.runner.bytes_per_token
    assert host_cuda.used <= 32 << 20
    opened.runner.close()

    options = replace(options, max_num_seqs=256, kv_cache_memory=3 << 20)
    session = ReferenceSession(folder.path / spec.graph)
    opened = open_paged_runner(session, Stream(), spec, options, host_cuda.total_memory)
    assert 2 << 20 < opened.kv_cache.limit_bytes <= 3 << 20
    opened.runner.close()


def test_memory_for_less_than_a_chunk_is_one_sentence(host_cuda, compile_tiny):
    folder = compile_tiny("qwen3", "cuda", "blocks")
    spec = folder.manifest.chat
    session = ReferenceSession(folder.path / spec.graph)
    options = EngineOptions(max_num_seqs=4, kv_cache_memory=1000)
    with pytest.raises(EngineIncompatible, match="left for the KV cache, but one chunk of 256"):
        open_paged_runner(session, Stream(), spec, options, host_cuda.total_memory)
