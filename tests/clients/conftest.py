"""Clients that are installed for the tests, once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


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
