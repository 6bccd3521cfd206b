"""The benchmark of a GPU as far as it goes without one: parity, limits, the report, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.gpu.bandwidth import decode_limit, measured_bandwidth
from benchmarks.gpu.chat import ChatFigures, DecodeSpeed, measure_chat
from benchmarks.gpu.command import GpuConfig, run_gpu
from benchmarks.gpu.demo import compile_demo
from benchmarks.gpu.parity import compare
from benchmarks.gpu.report import BEGIN, END, GpuReport, ParityFigures, goals, write_into
from engines.load import EngineOptions, load_llm_engine

ROOT = Path(__file__).parent.parent.parent


def figures(one: float, many: float, limit: float = 1000.0) -> ChatFigures:
    return ChatFigures(
        shape="qwen3-0.6b",
        target="cuda",
        precision="bf16",
        load_s=1.5,
        decode=[
            DecodeSpeed(num_seqs=1, tokens_per_s=one, limit=limit),
            DecodeSpeed(num_seqs=64, tokens_per_s=many, limit=40 * limit),
        ],
        first_token_s={512: 0.01, 4096: 0.05},
        throughput=12_345.6,
        num_streams=256,
    )


@pytest.mark.parametrize(("precision", "bar"), [("fp32", 1.0), ("int8", 0.97)])
def test_an_engine_agrees_with_the_one_in_fp32(tmp_path, precision, bar):
    """In decode steps together, prompts in chunks, more answers than run at a time."""
    reference = compile_demo(tmp_path, "ort-cpu", "fp32")
    other = compile_demo(tmp_path, "ort-cpu", precision)
    options = EngineOptions(num_threads=1, max_num_seqs=5, prefill_chunk=16)
    engine = load_llm_engine(other, options)
    num_steps = 1000 if precision == "int8" else 100  # more than the fixed prompts are answered in
    found = compare(reference.path, reference.manifest.chat, engine, num_steps)
    engine.scheduler.cache.check_integrity()
    assert engine.stats().num_running == 0
    engine.close()
    assert found.num_steps >= num_steps
    assert found.top1 >= bar
    assert found.mean_kl <= (1e-6 if precision == "fp32" else 0.01)


def test_the_limit_is_what_the_reads_of_a_step_allow():
    assert decode_limit(1e12, weight_bytes=10**10, cache_bytes=0, num_seqs=1) == 100
    assert decode_limit(1e12, weight_bytes=10**10, cache_bytes=10**9, num_seqs=10) == 500


def test_bandwidth_is_of_what_is_read_and_written(host_cuda):
    assert measured_bandwidth(size=1 << 16, repetitions=3) > 0


def test_the_commands_of_make_are_understood():
    """As far as a machine without a GPU says what it lacks, and not that an option is unknown."""
    recipe = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    lines = [line for line in recipe.splitlines() if "-m benchmarks gpu" in line]
    assert len(lines) == 2
    for line in lines:
        options = line.partition("-m benchmarks gpu")[2].replace("$(ARGS)", "--predict-at 4100")
        command = [sys.executable, "-m", "benchmarks", "gpu", *options.split()]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("| predicted, decode")


def test_what_is_expected_is_reckoned_without_a_gpu(capsys):
    assert run_gpu(GpuConfig(shapes=("qwen3-8b",), predict_at=4000)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + 3
    # 7.57 billion numbers of 2 bytes, and 544 tokens of 147,456 bytes for each stream.
    assert printed[2].startswith("| qwen3-8b | 1 | 263 | ")
    assert printed[4].startswith("| qwen3-8b | 64 | 12,")


def test_targets_that_are_missing_and_time_that_is_over_are_named(host_cuda, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.bandwidth.measured_bandwidth", lambda: 4e12)
    document = tmp_path / "performance.md"
    document.write_text(f"{BEGIN}{END}")
    config = GpuConfig(work_dir=tmp_path, max_minutes=0, into=document)
    assert run_gpu(config) == 0
    text = document.read_text()
    assert "Not run: everything on tensorrt: the engine is for TensorRT, which is not" in text
    for name in ("demo-chat in bf16", "qwen3-8b", "Stable Diffusion XL"):
        assert f"Not run: {name} on cuda: 0 minutes were over." in text
    assert not list(tmp_path.glob("checkpoints*")), "nothing was begun"


def test_goals_are_named_with_what_was_reached():
    reached, missed = goals([figures(850, 25 * 850)]), goals([figures(700, 10 * 700)])
    assert "85%, reached" in reached[0]
    assert "25.0 times, reached" in reached[1]
    assert "70%, missed" in missed[0]
    assert "10.0 times, missed" in missed[1]


def test_figures_go_between_the_marks_of_the_document(tmp_path):
    document = tmp_path / "performance.md"
    document.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    parity = ParityFigures(
        model="demo-chat", target="cuda", precision="bf16", num_steps=1024, top1=0.99, mean_kl=2e-3
    )
    report = GpuReport(
        command="python -m benchmarks gpu",
        machine={"gpu": "Host GPU"},
        bandwidth=4e12,
        chat=[figures(850, 21_000)],
        parity=[parity],
        skipped=["qwen3-8b on tensorrt: TensorRT is not installed"],
    )
    write_into(document, report)
    text = document.read_text()
    assert text.startswith("# Before")
    assert text.endswith("After\n")
    assert "old" not in text
    assert "gpu Host GPU" in text
    assert "move 4,000 GB/s" in text
    assert "| qwen3-0.6b bf16, cuda | 64 | 21,000 | 52% |" in text
    assert "| demo-chat bf16, cuda | 1,024 | 99.00% | 0.002 |" in text
    assert "Not run: qwen3-8b on tensorrt: TensorRT is not installed." in text


def test_the_document_that_make_fills_has_the_marks():
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.index(BEGIN) < text.index(END)


def test_a_gpu_without_memory_is_one_sentence(host_cuda, tmp_path):
    host_cuda.total_memory = 1 << 20
    with pytest.raises(BenchmarkFailed, match="its bandwidth cannot be measured: CUDA failed"):
        run_gpu(GpuConfig(work_dir=tmp_path))


def test_a_machine_without_a_gpu_is_told_so_in_one_sentence():
    command = [sys.executable, "-m", "benchmarks", "gpu"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 1
    assert result.stderr.startswith("error: the engine ")
    assert result.stderr.count("\n") == 1


def test_an_engine_with_few_sequences_is_measured_as_far_as_it_goes(tmp_path, monkeypatch):
    """The same code on a CPU engine, whose eight sequences cannot be 64."""
    monkeypatch.setattr("benchmarks.gpu.chat.PROMPT_SIZES", (64,))
    monkeypatch.setattr("benchmarks.gpu.chat.CONTEXT", 16)
    monkeypatch.setattr("benchmarks.gpu.chat.STEPS", 4)
    found = measure_chat(compile_demo(tmp_path, "ort-cpu", "fp32"), bandwidth=1e10, repetitions=1)
    assert [speed.num_seqs for speed in found.decode] == [1, 8]
    assert found.throughput is None
    assert set(found.first_token_s) == {64}
