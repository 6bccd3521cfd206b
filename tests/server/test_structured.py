"""Structured output and forced calls of the demo on a real server, by the openai client."""

from __future__ import annotations

import json
import re
from enum import StrEnum

import jsonschema
import pydantic
import pytest

from tests.server_process import ServerProcess

openai = pytest.importorskip("openai")

MODEL = "demo-chat"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["tea", "rain"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 12},
                    "days": {"type": "integer", "minimum": 1, "maximum": 7},
                },
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("get_weather", "get_news")
]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


@pytest.fixture(scope="module")
def client(demo_engine_dir):
    arguments = ["--engine-dir", str(demo_engine_dir), "--num-threads", "1"]
    with (
        ServerProcess(arguments) as process,
        openai.OpenAI(base_url=f"{process.base_url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


def ask(client, prompt="Tell me something.", **fields):
    return client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}], **{"max_tokens": 150} | fields
    )


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize("thinks", [False, True])
def test_answers_at_a_high_temperature_validate(client, thinks):
    answer = ask(
        client,
        n=4,
        seed=1,
        temperature=1.5,
        response_format=schema_format(PERSON),
        extra_body={"enable_thinking": thinks, "thinking_budget": 20},
    )
    whole = [choice for choice in answer.choices if choice.finish_reason == "stop"]
    assert whole, "none of the answers came to its end"
    for choice in whole:
        jsonschema.validate(json.loads(choice.message.content), PERSON)


def test_the_client_parses_into_its_own_model(client):
    class Colour(StrEnum):
        RED = "red"
        BLUE = "blue"

    class Flower(pydantic.BaseModel):
        colour: Colour
        petals: int

    parsed = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a flower."}],
        response_format=Flower,
        temperature=0,
        max_tokens=100,
    )
    assert isinstance(parsed.choices[0].message.parsed, Flower)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[a-c]{3}-[0-9]{2}"}, "[a-c]{3}-[0-9]{2}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_grammar": 'start: "a" ("b" | "c")'}, "ab|ac"),
        ({"structured_outputs": {"regex": "x+y"}}, "x+y"),
    ],
)
def test_forms_that_other_servers_know(client, fields, pattern):
    answer = ask(client, temperature=1, seed=3, extra_body=fields | {"enable_thinking": False})
    assert re.fullmatch(pattern, answer.choices[0].message.content)


NAMED = {"type": "function", "function": {"name": "get_news"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


@pytest.mark.parametrize("choice", ["required", NAMED, ALLOWED], ids=["any", "named", "allowed"])
def test_forced_calls_validate_whole_and_streamed(client, choice):
    fields = {
        "tools": TOOLS,
        "tool_choice": choice,
        "temperature": 1,
        "seed": 5,
        "extra_body": {"enable_thinking": False},
    }
    message = ask(client, **fields).choices[0].message
    call = message.tool_calls[0].function
    jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
    assert choice == "required" or call.name == "get_news"
    assert message.content is None
    name, arguments = "", ""
    for chunk in ask(client, stream=True, **fields):
        for part in chunk.choices[0].delta.tool_calls or ():
            if part.index == 0:
                name += part.function.name or ""
                arguments += part.function.arguments or ""
    assert (name, arguments) == (call.name, call.arguments)


def test_one_call_is_the_most_where_parallel_calls_are_off(client):
    message = (
        ask(
            client,
            tools=TOOLS,
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=1.2,
            seed=2,
            extra_body={"enable_thinking": False},
        )
        .choices[0]
        .message
    )
    assert len(message.tool_calls) == 1


def test_a_budget_of_thoughts_is_kept(client):
    answer = ask(
        client, "What is 3 + 4?", extra_body={"enable_thinking": True, "thinking_budget": 3}
    )
    details = answer.usage.completion_tokens_details
    assert 0 < details.reasoning_tokens <= 3 + 4, "the marks and what closes the block count"
    assert answer.choices[0].message.content


def test_neighbours_do_not_change_a_constrained_answer(client):
    fields = {"temperature": 1, "seed": 9, "response_format": schema_format(PERSON)}
    fields["extra_body"] = {"enable_thinking": False}
    alone = ask(client, **fields).choices[0].message.content
    together = ask(client, **fields, n=3)
    assert together.choices[0].message.content == alone
