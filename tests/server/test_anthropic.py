"""`/v1/messages` over HTTP: Anthropic's shape, whole and streamed."""

from __future__ import annotations

import json

import pytest

from server.schema.anthropic_answer import MessageEvent
from tests.server.apps import client as keyed_client
from tests.server.conversation import post
from tests.server.described import check
from tests.server.speaking import prompts, speaking_model

PATH = "/v1/messages"
NAMES = {kind.__struct_config__.tag: kind.__name__ for kind in MessageEvent.__args__}
TOOL = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
THOUGHT = "<think>\nlet me see\n</think>\n\n"
BODY = {"max_tokens": 120, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def say(tmp_path):
    return lambda reply, **options: speaking_model(tmp_path / "engine", reply, **options)


def answer(model, **body):
    response = post(PATH, BODY | body, model=model)
    assert response.status_code == 200, response.text
    check(response.json(), "AnthropicMessage")
    return response.json()


def streamed(model, **body):
    response = post(PATH, BODY | {"stream": True} | body, model=model)
    assert response.status_code == 200, response.text
    events = []
    for block in response.text.strip().split("\n\n"):
        if block == ": ping":
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        check(event, NAMES[event["type"]])
        events.append(event)
    return events


def test_thinking_text_and_calls_are_blocks_in_their_order(say):
    message = answer(say(f"{THOUGHT}Let me look.\n{CALL}"), tools=[TOOL])
    thinking, text, call = message["content"]
    assert thinking == {"type": "thinking", "thinking": "let me see", "signature": ""}
    assert text == {"type": "text", "text": "Let me look."}
    assert call.pop("id").startswith("toolu_")
    assert call == {"type": "tool_use", "name": "get_weather", "input": {"city": "Oslo"}}
    assert message["stop_reason"] == "tool_use"
    usage = message["usage"]
    assert usage["cache_read_input_tokens"] == 1
    assert usage["input_tokens"] > 1


def test_a_stream_tells_of_every_block_from_its_beginning_to_its_end(say):
    model = say(f"{THOUGHT}Let me look.\n{CALL}")
    events = streamed(model, tools=[TOOL])
    kinds = [event["type"] for event in events]
    once = [kind for index, kind in enumerate(kinds) if kind != kinds[index - 1]]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert once == ["message_start", *block * 3, "message_delta", "message_stop"]
    deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]

    def joined(kind):
        return "".join(delta.get(kind, "") for delta in deltas)

    assert joined("thinking") == "let me see"
    assert joined("text") == "Let me look."
    assert json.loads(joined("partial_json")) == {"city": "Oslo"}
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    whole = answer(model, tools=[TOOL])
    assert events[-2]["usage"] == whole["usage"]
    start = events[0]["message"]
    assert start["content"] == []
    assert start["usage"]["input_tokens"] == whole["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("body", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"max_tokens": 2}, "max_tokens", None),
        ({"stop_sequences": ["many", "you"]}, "stop_sequence", "you"),
    ],
)
def test_the_end_has_its_reason(say, body, reason, sequence):
    model = say("Hello you and many others")
    whole = answer(model, **body)
    ending = streamed(model, **body)[-2]["delta"]
    told = {"stop_reason": reason, "stop_sequence": sequence}
    assert ending == told == {name: whole[name] for name in told}


def test_a_limit_beyond_the_context_is_cut_and_said_to_be(say):
    message = answer(say("Hello you " * 60, max_context=96), max_tokens=4096)
    assert message["stop_reason"] == "model_context_window_exceeded"


def test_a_conversation_is_rendered_like_one_of_chat(say):
    model = say("Rain.")
    messages = [
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "look it up", "signature": "x"},
            {"type": "text", "text": "One moment."},
            {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "is_error": True,
             "content": [{"type": "text", "text": "no network"}]},
            {"type": "text", "text": "Well?"},
        ]},
    ]  # fmt: skip
    system = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    answer(model, messages=messages, system=system)
    assert prompts(model) == [
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nOslo?<|im_end|>\n"
        '<|im_start|>assistant\n(look it up)One moment.{"name": "get_weather", "arguments": '
        '{"city": "Oslo"}}<|im_end|>\n<|im_start|>tool\nError: no network<|im_end|>\n'
        "<|im_start|>user\nWell?<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_an_answer_goes_on_from_what_the_client_has_begun(say):
    model = say(" is 7.")
    messages = [*BODY["messages"], {"role": "assistant", "content": "3 + 4"}]
    assert answer(model, messages=messages)["content"][0]["text"] == " is 7."
    assert prompts(model)[0].endswith("<|im_start|>assistant\n3 + 4")


def test_a_prompt_is_counted_as_it_is_answered(say):
    model = say("Yes.")
    usage = answer(model, system="Be kind.", tools=[TOOL])["usage"]
    body = {"messages": BODY["messages"], "system": "Be kind.", "tools": [TOOL]}
    counted = post(f"{PATH}/count_tokens", body, model=model)
    check(counted.json(), "TokenCount")
    whole = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert counted.json() == {"input_tokens": whole}


def test_a_forced_tool_constrains_the_answer(say):
    for choice, is_constrained in (({"type": "any"}, True), ({"type": "none"}, False)):
        model = say(CALL)
        answer(model, tools=[TOOL], tool_choice=choice)
        assert (model.worker._engine.added[0].constraint is not None) == is_constrained


def test_a_thinking_budget_reaches_the_answer(say):
    model = say(f"{THOUGHT}Yes.")
    answer(model, thinking={"type": "enabled", "budget_tokens": 5})
    assert model.worker._engine.added[0].constraint is not None


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"model": "other"}, 404, "not_found_error", "'other'"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "invalid_request_error",
         "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400,
         "invalid_request_error", "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
         400, "invalid_request_error", "tool_use_id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400,
         "invalid_request_error", "tools[0].type"),
        ({"mcp_servers": [{}]}, 400, "invalid_request_error", "mcp_servers"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, 400,
         "invalid_request_error", "context_management"),
        ({"thinking": {"type": "enabled", "budget_tokens": 120}}, 400, "invalid_request_error",
         "thinking.budget_tokens"),
    ],
)  # fmt: skip
def test_errors_have_anthropics_shape(say, body, status, kind, said):
    response = post(PATH, BODY | body, model=say("Yes."))
    assert response.status_code == status, response.text
    check(response.json(), "AnthropicErrorResponse")
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == kind
    assert said in response.json()["error"]["message"]
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_a_stream_that_breaks_off_ends_with_an_error(say):
    model = say("Hello you and others")
    engine = model.worker._engine
    step = engine.step

    def fail_later():
        if engine.num_steps == 3:
            engine.failure = RuntimeError("boom")
        return step()

    engine.step = fail_later
    last = streamed(model)[-1]
    assert last["error"]["type"] == "api_error"
    assert "boom" not in json.dumps(last)


def test_the_key_may_come_in_anthropics_header():
    app = keyed_client(api_keys=["secret"])
    for key, status in (("secret", 200), ("wrong", 401)):
        assert app.simulate_get("/v1/models", headers={"x-api-key": key}).status_code == status
    refused = app.simulate_post(PATH, headers={"x-api-key": "wrong"}, json=BODY)
    assert refused.json["error"]["type"] == "authentication_error"


def test_what_edits_nothing_is_taken(say):
    edits = [{"type": "clear_thinking_20251015", "keep": "all"}]
    body = {"context_management": {"edits": edits}, "metadata": {"user_id": "me"}}
    assert answer(say("Yes."), **body)["content"][0]["text"] == "Yes."
