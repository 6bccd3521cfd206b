"""Engines with slots on a GPU of host memory: the plan's runner and the CUDA graph's fallback."""

from __future__ import annotations

import shutil
import sys

import msgspec
import pytest

from engines.backends.cuda import Stream
from engines.backends.ort_gpu_session import OrtGpuSession, require_provider
from engines.backends.slot_inputs import inputs_on_cuda
from engines.backends.tensorrt_builder import build_plan
from engines.backends.tensorrt_plan import chat_profiles
from engines.errors import EngineIncompatible
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from engines.load import EngineOptions, load_llm_engine
from engines.load_gpu import open_slots
from engines.manifest import ChatSpec, read_manifest, write_manifest
from engines.store import EngineFolder, check_files
from tests.engines.test_real_engine import prompts, run
from tests.gpu.test_paged_engine import ARRIVALS, assert_same

LIMITS = {"max_num_seqs": 3, "prefill_chunk": 24, "prefill_chunk_streaming": 12}


@pytest.fixture
def expected(compile_tiny):
    """What the CPU engine says to the same crowd."""

    def answer(family):
        cpu = load_llm_engine(compile_tiny(family), EngineOptions(num_threads=1, **LIMITS))
        outputs = run(cpu, dict(ARRIVALS), prompts())
        cpu.close()
        return outputs

    return answer


@pytest.fixture
def own_folder(compile_tiny, tmp_path):
    """A copy of an engine for TensorRT that has no plan yet."""

    def copy(family="qwen3"):
        shutil.copytree(compile_tiny(family, "tensorrt").path, tmp_path / "engine")
        return reload(tmp_path / "engine")

    return copy


def reload(path):
    return EngineFolder(path, read_manifest(path))


@pytest.mark.parametrize("family", ["qwen1", "qwen2.5", "qwen3"])
def test_a_plan_says_what_the_cpu_engine_says(host_tensorrt, own_folder, expected, family):
    """Built, loaded, run; swaps and copies of slots; decode steps recorded and replayed."""
    folder = own_folder(family)
    engine = load_llm_engine(folder, EngineOptions(rebuild=True, **LIMITS))
    assert engine.device == "cuda:0"
    found = run(engine, dict(ARRIVALS), prompts())
    assert_same(found, expected(family))
    assert sum(outputs[0].num_cached_tokens for outputs in found.values()) > 0
    assert host_tensorrt.num_launches > 20
    engine.close()


@pytest.mark.parametrize("family", ["qwen1", "qwen3", "qwen2-moe"])
def test_the_graph_with_slots_says_what_the_cpu_engine_says(
    host_cuda, compile_tiny, expected, family
):
    """GroupQueryAttention over addresses, as on CUDA, but by ONNX Runtime's CPU provider."""
    folder = compile_tiny(family, "cuda", "slots")
    spec = folder.manifest.chat
    session = OrtGpuSession(folder.path / spec.graph, 0, 0, provider="CPUExecutionProvider")
    num_rows = spec.max_context + spec.spare_rows
    options = EngineOptions(**LIMITS)
    describe = inputs_on_cuda(spec)
    opened = open_slots(
        session, Stream(), spec, options, host_cuda.total_memory, describe, num_rows
    )
    config = SchedulerConfig(max_context=spec.max_context, **LIMITS)
    engine = LLMEngine(opened.runner, config, opened.kv_cache, "host")
    assert_same(run(engine, dict(ARRIVALS), prompts()), expected(family))
    engine.close()


def test_a_plan_is_built_once_and_its_files_are_listed(host_tensorrt, own_folder):
    folder = own_folder()
    with pytest.raises(EngineIncompatible, match=r"has no plan yet: .* with --rebuild"):
        load_llm_engine(folder, EngineOptions())
    load_llm_engine(folder, EngineOptions(rebuild=True)).close()
    built = reload(folder.path)
    assert built.manifest.device.gpu == "Host GPU"
    assert built.manifest.device.compute_capability == "9.0"
    assert {"model.plan", "timing.cache"} <= built.manifest.files.keys()
    check_files(built)
    before = (folder.path / "model.plan").stat().st_mtime_ns
    load_llm_engine(built, EngineOptions()).close()
    load_llm_engine(built, EngineOptions(rebuild=True)).close()
    assert (folder.path / "model.plan").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gpu": "NVIDIA L4"}, "has a plan of NVIDIA L4"),
        ({"compute_capability": "8.9"}, r"compute capability 8\.9"),
        ({"tensorrt": "10.16.1"}, r"TensorRT 10\.16\.1, but this is Host GPU \(9\.0\) with 11\.4"),
    ],
)
def test_a_plan_of_another_machine_is_refused_or_built_anew(
    host_tensorrt, own_folder, change, sentence
):
    folder = own_folder()
    load_llm_engine(folder, EngineOptions(rebuild=True)).close()
    manifest = read_manifest(folder.path)
    there = msgspec.structs.replace(manifest.device, **change)
    write_manifest(msgspec.structs.replace(manifest, device=there), folder.path)
    foreign = reload(folder.path)
    with pytest.raises(EngineIncompatible, match=sentence) as refused:
        load_llm_engine(foreign, EngineOptions())
    assert f"--engine-dir {folder.path} --rebuild" in str(refused.value)
    load_llm_engine(foreign, EngineOptions(rebuild=True)).close()
    assert reload(folder.path).manifest.device == manifest.device
    assert (folder.path / "timing.cache").read_bytes() == b"++", "it was read and extended"


def test_a_build_that_is_stopped_leaves_no_plan(host_tensorrt, own_folder, tmp_path):
    folder = own_folder()
    plan = tmp_path / "model.plan"
    seen = []

    def stop(phase, done, total):
        seen.append((phase, done, total))
        return False

    with pytest.raises(EngineIncompatible, match="it was stopped"):
        build_plan(folder.path / "model.onnx", plan, chat_profiles(folder.manifest.chat), stop)
    assert seen == [("Building", 1, 2)]
    assert not plan.exists()


def test_a_graph_with_operators_of_another_domain_is_refused(host_tensorrt, compile_tiny, tmp_path):
    folder = compile_tiny("qwen3", "cuda", "blocks")
    with pytest.raises(EngineIncompatible, match=r"cannot read .*no importer for FusedMatMul"):
        build_plan(folder.path / "model.onnx", tmp_path / "model.plan", [])


def test_memory_for_too_few_slots_is_one_sentence(host_tensorrt, own_folder):
    folder = own_folder()
    load_llm_engine(folder, EngineOptions(rebuild=True)).close()
    host_tensorrt.total_memory = 1 << 18
    with pytest.raises(EngineIncompatible, match="are left for the KV cache, but a sequence"):
        load_llm_engine(reload(folder.path), EngineOptions())


def test_a_build_of_onnxruntime_without_cuda_is_one_sentence():
    with pytest.raises(EngineIncompatible, match=r"built without CUDA: .*enginery\[gpu\]"):
        require_provider("NoSuchExecutionProvider")


def test_an_old_tensorrt_is_one_sentence(host_tensorrt, own_folder, monkeypatch):
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.3.0")
    with pytest.raises(EngineIncompatible, match=r"for TensorRT 11 or newer, but 10\.3\.0 is"):
        load_llm_engine(own_folder(), EngineOptions())


def test_profiles_take_every_length_up_to_the_context():
    spec = msgspec.convert(
        {
            "graph": "model.onnx",
            "vocab_size": 10,
            "num_tokens": 10,
            "max_context": 40960,
            "states": [],
            "eos_token_ids": [],
            "num_parameters": 1,
        },
        type=ChatSpec,
    )
    lengths = [profile["cache_positions"][0][0] for profile in chat_profiles(spec)]
    assert sorted(set(lengths)) == [1024, 4096, 16384, 40961]


def test_what_a_plan_was_not_built_for_is_not_asked_of_it(host_tensorrt, own_folder):
    """More sequences and longer chunks than its profiles take."""
    options = EngineOptions(rebuild=True, max_num_seqs=100, prefill_chunk=5000)
    engine = load_llm_engine(own_folder(), options)
    assert engine.max_num_seqs == 64
    assert engine.scheduler.config.prefill_chunk == 512
    assert engine.scheduler.config.prefill_chunk_streaming == 256
    engine.close()
