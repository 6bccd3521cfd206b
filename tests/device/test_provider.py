"""ONNX Runtime's CUDA provider itself, without a GPU: which graphs it takes and what it records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.demo import PRECISIONS, compile_demo
from benchmarks.gpu.images import DEMO, compile_images
from tests.device import idle_cuda
from tests.device.idle_cuda.run import NUM_TOKENS, WAYS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CUDA's libraries with kernels that do nothing."""
    reason = idle_cuda.missing()
    if reason is not None:
        pytest.skip(f"the provider cannot be tried without a GPU: {reason}")
    folder = tmp_path_factory.mktemp("idle-cuda") / "libraries"
    idle_cuda.build(folder)
    return folder


def run(libraries: Path, *engines: Path) -> list[dict[str, int]]:
    """In a process of its own, so that none of the libraries stays in this one."""
    command = [sys.executable, "-m", "tests.device.idle_cuda.run", str(libraries)]
    command += [str(engine) for engine in engines]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_language_models_run_on_kernels_of_the_provider_and_steps_are_replayed(libraries, work):
    """In bf16, fp16 and int4, over blocks and over slots: no node is left for the CPU."""
    folders = [
        compile_demo(work, "cuda", precision, cache).path
        for precision in PRECISIONS["cuda"]
        for cache in ("blocks", "slots")
    ]
    found = run(libraries, *folders)
    assert len(found) == len(folders)
    for one in found:
        assert one["tokens"] == NUM_TOKENS * len(WAYS)
        assert one["num_recorded"] >= 1
        assert one["num_replayed"] >= NUM_TOKENS // 2


def test_image_models_are_taken_and_their_steps_can_be_recorded(libraries, work):
    folders = [compile_images(DEMO, work, "cuda", precision).path for precision in ("fp16", "fp32")]
    assert [one["loaded"] for one in run(libraries, *folders)] == [True, True]
