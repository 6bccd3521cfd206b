"""`/v1/messages` of a running server, by Anthropic's own client."""

from __future__ import annotations

import pytest

anthropic = pytest.importorskip("anthropic")

QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]
BODY = {"model": "demo-chat", "max_tokens": 100, "messages": QUESTION}
GREEDY = {"extra_body": {"temperature": 0}}
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(demo_server):
    with anthropic.Anthropic(base_url=demo_server.base_url, api_key="x", max_retries=0) as client:
        yield client


def test_an_answer_and_its_stream_say_the_same(client):
    whole = client.messages.create(**BODY, **GREEDY)
    assert whole.content[0].text == "3 + 4 is 7."
    assert whole.stop_reason == "end_turn"
    with client.messages.stream(**BODY, **GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_tokens_are_counted(client):
    whole = client.messages.create(**BODY, **GREEDY)
    counted = client.messages.count_tokens(model="demo-chat", messages=QUESTION)
    usage = whole.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_thinking_is_a_block_of_its_own(client):
    thinking = {"type": "enabled", "budget_tokens": 40}
    whole = client.messages.create(**BODY, thinking=thinking, **GREEDY)
    assert whole.content[0].type == "thinking"
    assert whole.content[-1].type == "text"


def test_a_tool_is_called_and_its_result_told(client):
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    body = BODY | {"messages": messages, "tools": [TOOL]}
    with client.messages.stream(**body, tool_choice={"type": "any"}, **GREEDY) as stream:
        called = stream.get_final_message()
    call = called.content[-1]
    assert called.stop_reason == "tool_use"
    assert call.name == "get_weather"
    assert set(call.input) == {"city"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain, 7 degrees"}
    messages += [
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    told = client.messages.create(**body, **GREEDY)
    assert told.content


def test_errors_are_those_that_the_client_knows(client):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**BODY | {"model": "other"})
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(**BODY | {"max_tokens": 0})
