"""A machine with a GPU made of host memory, and the same checkpoint compiled for all targets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engines.manifest import Manifest, read_manifest, write_manifest
from engines.store import EngineFolder
from export.checkpoint import open_checkpoint
from export.compile import compile_engine
from export.compile_plan import CompileOptions, plan_compilation
from export.precision import NodePrecision
from export.qwen.target import GraphTarget
from export.report import QuietProgress
from tests.checkpoints import make_checkpoint
from tests.export.qwen1 import make_qwen1_checkpoint
from tests.gpu.host_cuda import HostCuda
from tests.gpu.host_tensorrt import host_tensorrt as make_tensorrt

CompileTiny = Callable[..., EngineFolder]


@pytest.fixture
def host_tensorrt(host_cuda: HostCuda, monkeypatch: pytest.MonkeyPatch) -> HostCuda:
    """TensorRT over the same; the device itself."""
    monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt(host_cuda))
    return host_cuda


@pytest.fixture(scope="session")
def compile_tiny(tmp_path_factory: pytest.TempPathFactory) -> CompileTiny:
    """`compile_tiny(family, target, cache)`: an engine in fp32, whatever the target offers."""
    made: dict[tuple[str, ...], EngineFolder] = {}
    checkpoints: dict[str, Path] = {}

    def compile_tiny(family: str, target: str = "ort-cpu", cache: str = "slots") -> EngineFolder:
        if family not in checkpoints:
            folder = tmp_path_factory.mktemp("checkpoint") / family
            if family == "qwen1":  # most texts are longer than its trained length
                checkpoints[family] = make_qwen1_checkpoint(folder, seq_length=16)
            else:
                checkpoints[family] = make_checkpoint(folder, family)
        key = (family, target, cache)
        if key not in made:
            folder = tmp_path_factory.mktemp("engine")
            manifest = _compile(checkpoints[family], folder, target, cache)
            write_manifest(manifest, folder)
            made[key] = EngineFolder(folder, read_manifest(folder))
        return made[key]

    return compile_tiny


def _compile(checkpoint: Path, folder: Path, target: str, cache: str) -> Manifest:
    precision = "bf16" if target == "cuda" else "fp32"
    max_context = 256 if checkpoint.name == "qwen1" else None
    options = CompileOptions(
        engine_id="tiny", precision=precision, target=target, max_context=max_context
    )
    plan = plan_compilation(open_checkpoint(checkpoint, "tiny"), options)
    if target == "cuda":  # its kernels have no fp32, but numpy has
        plan = replace(
            plan,
            node_precision=NodePrecision("fp32", for_gpu=True),
            graph_target=GraphTarget("cuda", "float32", cache),
        )
    return compile_engine(plan, folder, QuietProgress())
