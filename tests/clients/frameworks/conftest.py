"""One environment for the Python frameworks, one folder for those of node, one server for all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

PYTHON_PACKAGES = ("langchain-openai", "litellm", "instructor", "pydantic-ai-slim[openai]")
NODE_PACKAGES = ("ai", "@ai-sdk/openai-compatible", "zod")


@pytest.fixture(scope="session")
def frameworks_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with the frameworks; kept in pytest's cache."""
    folder = request.config.cache.mkdir(f"frameworks-python{sys.version_info.minor}")
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        run([str(python), "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES])
        (folder / "complete").touch()
    return python


@pytest.fixture(scope="session")
def frameworks_node(request: pytest.FixtureRequest) -> Path:
    """A folder with the AI SDK; kept in pytest's cache."""
    folder = Path(request.config.cache.mkdir("frameworks-node"))
    if not (folder / "complete").exists():
        options = ["--no-audit", "--no-fund", "--no-save", "--prefix", str(folder)]
        run(["npm", "install", *options, *NODE_PACKAGES], cwd=folder)
        (folder / "complete").touch()
    return folder


@pytest.fixture(scope="session")
def frameworks_server(
    demo_engine_dir: Path, reader_engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A running server with the chat demo and models that embed and rank."""
    root = tmp_path_factory.mktemp("frameworks")
    (root / "chat").symlink_to(demo_engine_dir)
    (root / "reading").symlink_to(reader_engine_dir)
    with ServerProcess(["--engine-dir", str(root), "--num-threads", "1"]) as process:
        yield process


def run(command: list[str], cwd: Path | None = None) -> str:
    """The standard output of a command that has to succeed."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    return result.stdout
