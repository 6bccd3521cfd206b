"""Clients that are installed for the tests, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

OPENAI_0_28 = "0.28.1"


@pytest.fixture(scope="session")
def openai_node(request: pytest.FixtureRequest) -> Path:
    """A folder with openai-node's newest release; kept in pytest's cache."""
    folder = request.config.cache.mkdir("openai-node")
    if not (folder / "complete").exists():
        options = ["--no-audit", "--no-fund", "--no-save", "--prefix", str(folder)]
        command = ["npm", "install", *options, "openai"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        (folder / "complete").touch()
    return Path(folder)


@pytest.fixture(scope="session")
def openai_0_28(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with that openai-python; kept in pytest's cache."""
    folder = request.config.cache.mkdir(f"openai-{OPENAI_0_28}-python{sys.version_info.minor}")
    python = folder / "bin" / "python"
    if not (python.exists() and (folder / "complete").exists()):
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        # A wheel of aiohttp, as building one takes a compiler.
        only = ["--only-binary", "aiohttp", f"openai=={OPENAI_0_28}"]
        run([str(python), "-m", "pip", "install", "--quiet", *only])
        (folder / "complete").touch()
    return Path(python)


def run(command: list[str]) -> str:
    """What a command that has to succeed prints."""
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout
