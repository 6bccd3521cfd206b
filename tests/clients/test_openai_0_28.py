"""openai-python 0.28.1, in an environment of its own, against a running server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "0.28.1"
SCRIPT = Path(__file__).parent / "openai_0_28_script.py"


@pytest.fixture(scope="module")
def python(request):
    """The interpreter of an environment with that client; kept in pytest's cache."""
    folder = request.config.cache.mkdir(f"openai-{VERSION}-python{sys.version_info.minor}")
    python = folder / "bin" / "python"
    if not (python.exists() and (folder / "complete").exists()):
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        # A wheel of aiohttp, as building one takes a compiler.
        only = ["--only-binary", "aiohttp", f"openai=={VERSION}"]
        run([str(python), "-m", "pip", "install", "--quiet", *only])
        (folder / "complete").touch()
    return python


@pytest.fixture(scope="module")
def seen(python, server):
    return json.loads(run([str(python), str(SCRIPT), server.base_url]))


def run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_chat_and_its_stream_say_the_same(seen):
    assert seen["version"] == VERSION
    assert seen["content"] == seen["streamed"]
    assert seen["first_delta"] == {"role": "assistant", "content": ""}
    assert seen["finish_reason"] == seen["stream_end"]
    assert seen["total_tokens"] > 12


def test_a_text_completion_and_its_stream_say_the_same(seen):
    assert seen["text"] == seen["pieces"]
    assert len(seen["tokens"]) <= 6


def test_the_models_are_listed(seen):
    assert seen["models"] == ["tiny"]


def test_errors_have_status_code_and_field(seen):
    assert seen["errors"] == [
        [404, "model_not_found", "model"],
        [400, "invalid_value", "temperature"],
    ]
