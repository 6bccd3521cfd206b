"""Function calls over HTTP: whole and streamed, in the form of tools and in the older one."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from server.text.processor import TextProcessor
from tests.checkpoints import CHAT_TEMPLATE
from tests.server.conversation import CHAT_PATH, converse, said, stream
from tests.server.fakes import scripted_engine, served_model, write_text_files

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
FUNCTIONS = [tool["function"] for tool in TOOLS]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@pytest.fixture
def say(tmp_path):
    """A model that knows calls and reasoning, and says one thing."""

    def say(reply: str, **options):
        template = "{# <tool_call> </think> #}" + CHAT_TEMPLATE
        folder = write_text_files(tmp_path / "engine", template)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
        tokenizer.save(str(folder / "tokenizer.json"))
        text = TextProcessor.load(folder)
        return served_model(text, scripted_engine(text, reply, **options))

    return say


def deltas(events):
    return [choice["delta"] for event in events for choice in event["choices"]]


def test_a_call_is_told_apart_from_the_text_before_it(say):
    choice = converse({"tools": TOOLS}, say("Let me look." + "\n" + CALL))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me look."
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Oslo"}'}


def test_an_answer_of_calls_alone_has_no_content(say):
    message = converse({"tools": TOOLS}, say(f"{CALL}\n{CALL}"))["choices"][0]["message"]
    assert message["content"] is None
    first, second = message["tool_calls"]
    assert first["id"] != second["id"]


def test_a_streamed_call_has_id_and_name_first_and_the_same_arguments(say):
    events = stream(CHAT_PATH, said({"tools": TOOLS}), say(f"Hm.\n{CALL}\n{CALL}"))
    calls = [call for delta in deltas(events) for call in delta.get("tool_calls", ())]
    for index in range(2):
        first, *others = [call for call in calls if call["index"] == index]
        assert first["id"].startswith("call_")
        assert first["type"] == "function"
        assert first["function"] == {"name": "get_weather", "arguments": ""}
        assert all("id" not in call and "name" not in call["function"] for call in others)
        arguments = "".join(call["function"]["arguments"] for call in others)
        assert arguments == '{"city": "Oslo"}'
    assert "".join(delta.get("content", "") for delta in deltas(events)) == "Hm."
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_without_tools_a_call_is_text(say):
    for body in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        choice = converse(body, say(CALL))["choices"][0]
        assert choice["message"]["content"] == CALL
        assert choice["finish_reason"] == "stop"


def test_the_older_form_has_one_function_call(say):
    body = {"functions": FUNCTIONS, "function_call": "auto"}
    choice = converse(body, say(f"{CALL}\n{CALL}"))["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {
        "name": "get_weather",
        "arguments": '{"city": "Oslo"}',
    }
    assert "tool_calls" not in choice["message"]
    events = stream(CHAT_PATH, said(body), say(f"{CALL}\n{CALL}"))
    told = [delta["function_call"] for delta in deltas(events) if "function_call" in delta]
    assert told[0] == {"name": "get_weather", "arguments": ""}
    assert "".join(part["arguments"] for part in told) == '{"city": "Oslo"}'
    assert events[-1]["choices"][0]["finish_reason"] == "function_call"


def test_an_answer_that_is_cut_off_within_a_call_has_the_reason_length(say):
    choice = converse({"tools": TOOLS, "max_tokens": 8}, say(CALL))["choices"][0]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_reasoning_has_two_names_and_its_tokens_are_counted(say, is_streamed):
    model = say("<think>\nlet me see\n</think>\n\nYes.")
    if is_streamed:
        body = said({"stream_options": {"include_usage": True}})
        events = stream(CHAT_PATH, body, model)
        parts, usage = deltas(events), events[-1]["usage"]
        told = {
            name: "".join(part.get(name, "") for part in parts)
            for name in ("reasoning_content", "reasoning", "content")
        }
    else:
        answer = converse({}, model)
        told, usage = answer["choices"][0]["message"], answer["usage"]
    assert told["reasoning_content"] == told["reasoning"] == "let me see"
    assert told["content"] == "Yes."
    counted = usage["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < counted < usage["completion_tokens"]


def test_an_answer_without_reasoning_has_neither_name(say):
    answer = converse({}, say("Yes."))
    assert "reasoning" not in answer["choices"][0]["message"]
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_the_results_of_calls_go_back_in_both_forms(say):
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    newer = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    older = [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "rain"},
    ]
    counts = []
    for history in (newer, older):
        model = say("Rain.")
        converse({"messages": [{"role": "user", "content": "Hi"}, *history]}, model)
        counts.append(model.worker._engine.added[0].token_ids)
    assert counts[0] == counts[1]


def test_a_constraint_reaches_every_choice_of_its_own(say):
    model = say("yes")
    converse({"guided_choice": ["yes", "no"], "n": 2}, model)
    first, second = (seq.constraint for seq in model.worker._engine.added)
    assert first is not None
    assert first is not second


def test_a_request_without_form_or_functions_is_not_constrained(say):
    model = say("yes")
    converse({"response_format": {"type": "text"}}, model)
    assert model.worker._engine.added[0].constraint is None


def test_the_events_of_a_stream_are_json_that_names_no_absent_field(say):
    events = stream(CHAT_PATH, said({"tools": TOOLS}), say(CALL))
    assert "null" not in json.dumps([delta.get("tool_calls") for delta in deltas(events)[1:-1]])
