"""openai-python 0.28.1, in an environment of its own, against a running server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.conftest import OPENAI_0_28, run

SCRIPT = Path(__file__).parent / "openai_0_28_script.py"


@pytest.fixture(scope="module")
def seen(openai_0_28, server):
    return json.loads(run([str(openai_0_28), str(SCRIPT), server.base_url]))


def test_a_chat_and_its_stream_say_the_same(seen):
    assert seen["version"] == OPENAI_0_28
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
