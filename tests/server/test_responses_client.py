"""`/v1/responses` of a running server, by openai-python and its helpers."""

from __future__ import annotations

import json
from typing import Literal

import pydantic
import pytest

openai = pytest.importorskip("openai")

MODEL = "demo-chat"
SEEDED = {"extra_body": {"seed": 1}}


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    likes: list[Literal["tea", "rain"]] = pydantic.Field(max_length=3)


class GetWeather(pydantic.BaseModel):
    city: str = pydantic.Field(max_length=12)


@pytest.fixture(scope="module")
def client(demo_server):
    url = f"{demo_server.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        yield client


def test_a_turn_goes_on_from_the_last(client):
    first = client.responses.create(model=MODEL, input="What is 3 + 4?", temperature=0)
    assert "7" in first.output_text
    second = client.responses.create(
        model=MODEL, input="What is Enginery?", previous_response_id=first.id, temperature=0
    )
    assert second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0, "the first turn is reused"
    assert client.responses.retrieve(second.id).output_text == second.output_text
    listed = list(client.responses.input_items.list(second.id, limit=1, order="asc"))
    assert [item.role for item in listed] == ["user", "assistant", "user"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_the_client_accumulates_a_stream(client):
    body = {"model": MODEL, "input": "What is 3 + 4?", "temperature": 0}
    with client.responses.stream(**body) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == client.responses.create(**body).output_text


def test_an_answer_is_parsed_into_a_class(client):
    answer = client.responses.parse(
        model=MODEL, input="Tell me of Maria.", text_format=Person, temperature=1, **SEEDED
    )
    assert isinstance(answer.output_parsed, Person)


def test_a_stream_is_parsed_into_a_class(client):
    with client.responses.stream(
        model=MODEL, input="Tell me of Maria.", text_format=Person, temperature=1, **SEEDED
    ) as stream:
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Person)


def test_a_forced_call_has_arguments_that_validate_and_its_output_goes_back(client):
    tool = openai.pydantic_function_tool(GetWeather)["function"]
    tool = {"type": "function", "strict": True} | tool
    body = {"model": MODEL, "tools": [tool], "temperature": 0}
    question = [{"role": "user", "content": "What is the weather in Oslo?"}]
    called = client.responses.create(**body, input=question, tool_choice="required")
    call = called.output[-1]
    assert call.type == "function_call"
    assert GetWeather.model_validate_json(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": json.dumps("rain")}
    told = client.responses.create(**body, input=[output], previous_response_id=called.id)
    assert told.output
    by_hand = [*question, *(item.model_dump() for item in called.output), output]
    again = client.responses.create(**body, input=by_hand, store=False)
    assert again.usage.input_tokens == told.usage.input_tokens


def test_reasoning_is_an_item_and_can_be_switched_off(client):
    body = {"model": MODEL, "input": "What is 3 + 4?", "temperature": 0}
    thought = client.responses.create(**body, reasoning={"effort": "high"})
    assert thought.output[0].type == "reasoning"
    assert thought.usage.output_tokens_details.reasoning_tokens > 0
    plain = client.responses.create(**body, reasoning={"effort": "none"})
    assert [item.type for item in plain.output] == ["message"]


def test_errors_are_those_that_the_client_knows(client):
    for change, param in (
        ({"model": "other"}, "model"),
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"background": True}, "background"),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            client.responses.create(**{"model": MODEL, "input": "Hi"} | change)
        assert caught.value.param == param
