"""Frameworks that speak the OpenAI API, each in a process of its own, against a running server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.frameworks.conftest import run

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
WIDTH = 64  # of the tiny model's embeddings


@pytest.fixture(scope="module")
def seen(frameworks_python, frameworks_server):
    """`seen(name)`: what the script of a framework saw."""

    def see(name):
        script = str(HERE / f"{name}_script.py")
        return json.loads(run([str(frameworks_python), script, frameworks_server.base_url]))

    return see


def assert_person(person):
    assert 1 <= len(person["name"]) <= 12 or person["name"] == ""
    assert 0 <= person["age"] <= 120


def test_langchain_chats_calls_structures_and_embeds(seen):
    langchain = seen("langchain")
    assert langchain["content"] == langchain["streamed"]
    assert langchain["num_chunks"] > 3
    assert langchain["usage"][0] == langchain["usage"][1]
    assert langchain["finish_reason"] == "stop"
    assert langchain["calls"] == ["get_weather"]
    assert [list(arguments) for arguments in langchain["arguments"]] == [["city"]]
    assert langchain["answered"]
    for person in langchain["people"].values():
        assert_person(person)
    assert [len(row) for row in langchain["documents"]] == [WIDTH, WIDTH]
    assert langchain["query"] == pytest.approx(langchain["documents"][0], abs=1e-5)


def test_litellm_chats_calls_structures_embeds_and_ranks(seen):
    litellm = seen("litellm")
    assert litellm["content"] == litellm["streamed"]
    assert litellm["usage"][0] == litellm["usage"][1]
    assert (litellm["finish_reason"], litellm["call"]) == ("tool_calls", "get_weather")
    assert list(litellm["arguments"]) == ["city"]
    assert_person(litellm["person"])
    assert litellm["embeddings"] == [WIDTH, WIDTH]
    assert litellm["ranked"] == [0, 1]
    assert litellm["errors"] == [["NotFoundError", 404], ["BadRequestError", 400]]


def test_instructor_fills_models_whole_and_in_parts(seen):
    for whole, last_part, num_parts in seen("instructor").values():
        for person in (whole, last_part):
            assert_person(person)
            assert len(person["pets"]) <= 2
        assert num_parts > 1


def test_pydantic_ai_chats_streams_structures_and_calls(seen):
    pydantic_ai = seen("pydantic_ai")
    assert "".join(pydantic_ai["pieces"]) == pydantic_ai["content"]
    assert len(pydantic_ai["pieces"]) > 1
    assert_person(pydantic_ai["by_tool"])
    assert_person(pydantic_ai["by_schema"])
    assert len(pydantic_ai["cities"]) == 1, "the demo calls the function that it is given"
    assert pydantic_ai["told"]


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm")
def test_the_ai_sdk_chats_calls_structures_and_embeds(frameworks_node, frameworks_server):
    script = HERE / "ai_sdk_script.mjs"
    shutil.copy(script, frameworks_node)  # modules are looked up from where a script lies
    command = ["node", script.name, frameworks_server.base_url]
    ai_sdk = json.loads(run(command, cwd=frameworks_node))
    assert "".join(ai_sdk["pieces"]) == ai_sdk["content"]
    assert ai_sdk["usage"][0] == ai_sdk["usage"][1] > 0
    assert ai_sdk["finishReasons"] == ["tool-calls", "tool-calls"]
    for calls in (ai_sdk["calls"], ai_sdk["streamedCalls"]):
        assert [(name, list(arguments)) for name, arguments in calls] == [("get_weather", ["city"])]
    assert_person(ai_sdk["person"])
    assert ai_sdk["embeddings"] == [WIDTH, WIDTH]
    assert ai_sdk["refusal"] == ["AI_APICallError", 404, "model_not_found"]
