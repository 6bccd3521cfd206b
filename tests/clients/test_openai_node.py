"""openai-node against a running server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "openai_node_script.mjs"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="needs node and npm"
)


@pytest.fixture(scope="module")
def seen(openai_node, server):
    shutil.copy(SCRIPT, openai_node)  # modules are looked up from where a script lies
    return json.loads(run(["node", SCRIPT.name, server.base_url], openai_node))


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_chat_its_stream_and_its_accumulation_say_the_same(seen):
    assert seen["content"] == seen["streamed"] == seen["accumulated"]
    assert seen["firstDelta"] == {"role": "assistant", "content": ""}


def test_usage_is_equal_streamed_and_not(seen):
    uncached = {"prompt_tokens_details": None}
    assert seen["streamedUsage"] | uncached == seen["usage"] | uncached


def test_a_text_completion_and_its_stream_say_the_same(seen):
    assert seen["text"] == seen["pieces"]
    assert len(seen["tokens"]) <= 6


def test_the_models_are_listed(seen):
    assert seen["models"] == ["tiny"]


def test_errors_are_those_that_the_client_knows(seen):
    assert seen["errors"] == [
        ["NotFoundError", 404, "model_not_found", "model"],
        ["BadRequestError", 400, "invalid_value", "temperature"],
    ]
