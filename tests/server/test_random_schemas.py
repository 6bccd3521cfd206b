"""Structured output by random schemas, and by hostile ones, of the demo on a real server.

`pytest tests/server/test_random_schemas.py --random-schemas 500 -s` tries more of them.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import jsonschema
import pytest

from tests.server.random_schemas import random_schemas

URL = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Give me an example."}]


def ask(client, seed, **fields):
    body = {"model": "demo-chat", "messages": QUESTION, "temperature": 1, "seed": seed}
    return client.post(URL, json=body | {"max_tokens": 300} | fields)


def outcome(client, seed, schema):
    """How an answer ended; one that ended by itself has to validate."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = ask(client, seed, response_format=form, max_tokens=600)
    if answer.status_code == 400:
        assert answer.json()["error"]["param"].startswith("response_format"), answer.text
        return "refused"
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    if choice["finish_reason"] == "stop":
        value = json.loads(choice["message"]["content"])
        jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
    return choice["finish_reason"]


def test_answers_that_end_by_themselves_validate(demo_server, pytestconfig):
    count = pytestconfig.getoption("--random-schemas")
    schemas = random_schemas(count)
    assert len(schemas) == count
    with (
        httpx.Client(base_url=demo_server.base_url, timeout=600) as client,
        ThreadPoolExecutor(8) as executor,
    ):
        outcomes = executor.map(lambda pair: outcome(client, *pair), enumerate(schemas))
        counts = Counter(outcomes)
    print(f"\n{count} random schemas: {dict(counts)}")
    assert counts["stop"] > 0.4 * count, "too few answers to say anything"


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def by_schema(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x"} | schema}}


HOSTILE = {
    "a schema that is only itself": by_schema({"schema": {"$ref": "#"}}),
    "schemas in a circle": by_schema(
        {"schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"},
                                                   "b": {"$ref": "#/$defs/a"}}}}
    ),
    "a schema nested 800 deep": by_schema({"schema": nested(400)}),
    "an object of 1,500 properties": by_schema(
        {"schema": {"type": "object", "properties": {f"p{i}": {} for i in range(1_500)}}}
    ),
    "a bad expression in a schema": by_schema({"schema": {"type": "string", "pattern": "(a"}}),
    "an unsatisfiable schema": by_schema({"schema": {"type": "integer", "minimum": 3,
                                                     "maximum": 2}}),
    "60,000 groups": {"guided_regex": "(" * 60_000 + ")" * 60_000},
    "20,000 groups side by side": {"guided_regex": "(a)" * 20_000},
    "too many states": {"guided_regex": "(a|b|ab)*" * 1_800},
    "a bad expression": {"guided_regex": "[a-"},
    "a grammar that goes nowhere": {"guided_grammar": "start: start"},
    "deep parentheses": {"guided_grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_enforced_is_a_400_and_the_server_lives_on(demo_server, name):
    with demo_server.client() as client:
        answer = ask(client, 0, **HOSTILE[name])
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"]
        assert len(error["message"]) < 500
        assert ask(client, 0, max_tokens=1).status_code == 200


def test_an_answer_whose_grammar_cannot_be_followed_ends_in_an_error(demo_server):
    """It fits no further than `cho`, where 2,500 texts go on: more than the parser follows."""
    texts = " | ".join(f'"choice number {index}"' for index in range(2_500))
    grammar = {"guided_grammar": f"start: {texts}"}
    with demo_server.client() as client:
        answer = ask(client, 0, **grammar)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"] == "guided_grammar"
        assert "became too complex to be followed" in error["message"]
        events = ask(client, 0, stream=True, **grammar).text.split("\n\n")
        assert json.loads(events[-3].removeprefix("data: "))["error"] == error, events


def test_a_choice_may_have_thousands_of_texts(demo_server):
    texts = [f"choice number {index}" for index in range(2_500)]
    with demo_server.client() as client:
        (choice,) = ask(client, 0, guided_choice=texts).json()["choices"]
    assert choice["message"]["content"] in texts
    assert choice["finish_reason"] == "stop"


def test_a_body_that_is_nested_800_deep_is_a_400(demo_server):
    body = json.dumps({"model": "demo-chat", "messages": QUESTION, "response_format": "X"})
    schema = '{"type":"object","properties":{"a":' * 800 + "{}" + "}}" * 800
    form = '{"type": "json_schema", "json_schema": {"name": "x", "schema": ' + schema + "}}"
    with demo_server.client() as client:
        answer = client.post(
            URL,
            content=body.replace('"X"', form),
            headers={"Content-Type": "application/json"},
        )
    assert answer.status_code == 400, answer.text
