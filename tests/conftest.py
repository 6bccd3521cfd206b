"""What many tests share: tiny engines compiled once, and servers that run on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.gpu.host_cuda import HostCuda
from tests.server_process import ServerProcess

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

TINY_ENGINE_ID = "tiny"
PAINTER = "tiny-painter"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--random-schemas",
        type=int,
        default=20,
        help="JSON schemas that the demo answers by (tests/server/test_random_schemas.py)",
    )


@pytest.fixture(scope="session")
def tiny_engine_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of engines, with one of a random Qwen3 of 2,048 tokens; not to be changed."""
    # Imported here, as most tests need neither torch nor the exporter.
    from engines.manifest import write_manifest
    from export.checkpoint import open_checkpoint
    from export.compile import compile_engine
    from export.compile_plan import CompileOptions, plan_compilation
    from export.report import QuietProgress
    from tests.checkpoints import make_checkpoint

    root = tmp_path_factory.mktemp("served")
    checkpoint = make_checkpoint(root / "checkpoint", "qwen3", max_position_embeddings=2048)
    folder = root / "engines" / TINY_ENGINE_ID
    folder.mkdir(parents=True)
    options = CompileOptions(engine_id=TINY_ENGINE_ID, precision="fp32")
    plan = plan_compilation(open_checkpoint(checkpoint, TINY_ENGINE_ID), options)
    write_manifest(compile_engine(plan, folder, QuietProgress()), folder)
    return folder.parent


@pytest.fixture(scope="session")
def demo_engine_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of engines, with the chat demo in int8; not to be changed."""
    from engines.machine import has_fast_int8
    from engines.manifest import write_manifest
    from export.checkpoint import open_checkpoint
    from export.compile import compile_engine
    from export.compile_plan import CompileOptions, plan_compilation
    from export.report import QuietProgress

    checkpoint = Path(__file__).parent.parent / "demos" / "demo-chat"
    folder = tmp_path_factory.mktemp("demo") / "engines" / "demo-chat"
    folder.mkdir(parents=True)
    options = CompileOptions(
        engine_id="demo-chat", precision="int8", reduce_range=not has_fast_int8()
    )
    plan = plan_compilation(open_checkpoint(checkpoint, "demo-chat"), options)
    write_manifest(compile_engine(plan, folder, QuietProgress()), folder)
    return folder.parent


@pytest.fixture(scope="session")
def server(tiny_engine_dir: Path) -> Iterator[ServerProcess]:
    """A running server with the engine `tiny`; tests leave it running."""
    arguments = ["--engine-dir", str(tiny_engine_dir), "--num-threads", "1"]
    with ServerProcess(arguments) as process:
        yield process


@pytest.fixture(scope="session")
def demo_server(demo_engine_dir: Path) -> Iterator[ServerProcess]:
    """A running server with the engine `demo-chat`; tests leave it running."""
    arguments = ["--engine-dir", str(demo_engine_dir), "--num-threads", "1"]
    with ServerProcess(arguments) as process:
        yield process


@pytest.fixture(scope="session")
def painter_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an engine of a random Stable Diffusion; not to be changed."""
    # Imported here, as most tests need neither torch nor the exporter.
    from engines.manifest import write_manifest
    from export.diffusion.checkpoint import open_diffusion_checkpoint
    from export.diffusion.engine import compile_image_engine, plan_image_engine
    from export.report import QuietProgress
    from tests.export.diffusion.tiny_pipelines import make_sd15

    root = tmp_path_factory.mktemp("painter")
    checkpoint = open_diffusion_checkpoint(make_sd15(root / "checkpoint"), PAINTER)
    folder = root / "engines" / PAINTER
    folder.mkdir(parents=True)
    plan = plan_image_engine(checkpoint, PAINTER)
    write_manifest(compile_image_engine(plan, folder, QuietProgress()), folder)
    return folder


@pytest.fixture(scope="session")
def painter_server(
    painter_engine: Path, tiny_engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A running server with the engines `tiny-painter` and `tiny`; tests leave it running."""
    root = tmp_path_factory.mktemp("both")
    (root / "chat").symlink_to(tiny_engine_dir / "tiny")
    (root / "image").symlink_to(painter_engine)
    with ServerProcess(["--engine-dir", str(root), "--num-threads", "1"]) as process:
        yield process


@pytest.fixture(scope="session")
def reader_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a random Qwen3-Embedding and Qwen3-Reranker; not to be changed."""
    from tests.export.pooling_checkpoints import (
        make_embedding_checkpoint,
        make_reranker_checkpoint,
    )

    root = tmp_path_factory.mktemp("readers")
    return {
        "embedding": make_embedding_checkpoint(root / "tiny-embedding"),
        "reranker": make_reranker_checkpoint(root / "tiny-reranker"),
    }


@pytest.fixture(scope="session")
def reader_engine_dir(
    reader_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the engines `tiny-embedding` and `tiny-reranker` in fp32; not to be changed."""
    from engines.manifest import write_manifest
    from export.checkpoint import open_checkpoint
    from export.compile_plan import CompileOptions
    from export.pooling.compile import compile_pooling_engine, plan_pooling
    from export.report import QuietProgress

    root = tmp_path_factory.mktemp("reading")
    for task, checkpoint in reader_checkpoints.items():
        name = checkpoint.name
        (root / name).mkdir()
        options = CompileOptions(engine_id=name, precision="fp32")
        plan = plan_pooling(
            open_checkpoint(checkpoint, name), options, "rerank" if task == "reranker" else task
        )
        write_manifest(compile_pooling_engine(plan, root / name, QuietProgress()), root / name)
    return root


@pytest.fixture(scope="session")
def reader_server(reader_engine_dir: Path) -> Iterator[ServerProcess]:
    """A running server with the engines `tiny-embedding` and `tiny-reranker`."""
    arguments = ["--engine-dir", str(reader_engine_dir), "--num-threads", "1"]
    with ServerProcess(arguments) as process:
        yield process


@pytest.fixture
def host_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCuda]:
    """CUDA over host memory; all of it has to be given back."""
    cuda = HostCuda()
    for name, module in cuda.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield cuda
    assert not cuda.blocks, "memory of the device was not given back"
