"""The first Qwen's form of calls: lines of text, asked for, parsed however they are cut, told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.chatml import CHATML_TEMPLATE
from server.text.parsing.events import CallArguments, CallBegin, Content, Reasoning
from server.text.parsing.react import ReactParser
from server.text.processor import TextProcessor
from server.text.tool_calls import Function, call_form, calls_grammar
from tests.server.conversation import CHAT_PATH, converse, post, said, stream
from tests.server.fakes import scripted_engine, served_model, write_text_files
from tests.server.speaking import prompts

CALL = 'Thought: I should look.\nAction: get_weather\nAction Input: {"city": "Oslo"}\nObservation:'
ANSWER = "Thought: I now know the final answer.\nFinal Answer: It rains.\nBring a coat."
# As the documentation of Qwen's own server has them, and as OpenAI has them.
QWEN_FUNCTION = {
    "name_for_human": "Weather",
    "name_for_model": "get_weather",
    "description_for_model": "The weather of a city.",
    "parameters": [
        {"name": "city", "description": "A city", "required": True, "schema": {"type": "string"}}
    ],
}
FUNCTION = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


@pytest.fixture
def say(tmp_path):
    def say(reply, **options):
        text = TextProcessor.load(write_text_files(tmp_path / "engine", CHATML_TEMPLATE))
        return served_model(text, scripted_engine(text, reply, max_context=1024, **options))

    return say


def read(pieces, **options):
    """Content, reasoning, name and arguments that a text comes to."""
    parser = ReactParser(**options)
    events = [event for piece in pieces for event in parser.push(piece)] + parser.flush()
    told = {"content": "", "reasoning": "", "name": None, "arguments": ""}
    for event in events:
        match event:
            case Content(text):
                told["content"] += text
            case Reasoning(text):
                told["reasoning"] += text
            case CallBegin(_, name):
                told["name"] = name
            case CallArguments(_, text):
                told["arguments"] += text
    assert parser.num_calls == (told["name"] is not None)
    return told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CALL, {"content": "I should look.", "name": "get_weather",
                "arguments": '{"city": "Oslo"}'}),
        (CALL.removesuffix("\nObservation:"), {"content": "I should look.", "name": "get_weather",
                                               "arguments": '{"city": "Oslo"}'}),
        (ANSWER, {"reasoning": "I now know the final answer.",
                  "content": "It rains.\nBring a coat."}),
        ("Hello\nyou.", {"content": "Hello\nyou."}),
        ("Thought: hm", {"content": "Thought: hm"}),
        ("Sure.\nAction: f\nAction Input: 1", {"content": "Sure.", "name": "f", "arguments": "1"}),
        ("Thought: a\nAction: f", {"content": "a\nAction: f"}),
        ("Action: f\nAction Input:", {"name": "f", "arguments": "{}"}),
        ("Thought: a\nAction: two\nlines\nAction Input: x",
         {"content": "a\nAction: two\nlines\nAction Input: x"}),
        ("", {}),
    ],
)  # fmt: skip
def test_an_answer_is_a_call_a_final_answer_or_text(text, told):
    nothing = {"content": "", "reasoning": "", "name": None, "arguments": ""}
    assert read([text]) == nothing | told


def test_a_thought_that_the_prompt_has_begun_goes_on():
    assert read([CALL.removeprefix("Thought:")], is_thinking=True)["content"] == "I should look."
    told = read([ANSWER.removeprefix("Thought:")], is_thinking=True)
    assert told["reasoning"] == "I now know the final answer."


LINES = st.lists(
    st.sampled_from(
        ["Thought: a", "Action: f", "Action Input: {}", "Observation: x", "Final Answer: b", "c",
         "Action", "", " ", "Thought", "{", "\n"]
    ),
    max_size=8,
).map("\n".join)  # fmt: skip


@given(LINES | st.text(alphabet="ThougtAcin: \nInpuObsevFlw{}", max_size=60), st.data())
def test_how_the_text_is_cut_changes_nothing(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    ends = [*cuts, len(text)]
    pieces = [text[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    for is_thinking in (False, True):
        whole = read([text], is_thinking=is_thinking)
        assert read(pieces, is_thinking=is_thinking) == whole


def test_the_template_tells_the_form():
    assert call_form(CHATML_TEMPLATE) == "react"


@pytest.mark.parametrize("function", [QWEN_FUNCTION, FUNCTION])
def test_a_function_is_called_whole_and_streamed(say, function):
    body = {"functions": [function]}
    choice = converse(body, say(CALL))["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["content"] == "I should look."
    called = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    assert choice["message"]["function_call"] == called
    events = stream(CHAT_PATH, said(body), say(CALL))
    told = [e["choices"][0]["delta"].get("function_call", {}) for e in events]
    assert [part["name"] for part in told if "name" in part] == ["get_weather"]
    assert "".join(part.get("arguments", "") for part in told) == called["arguments"]
    assert events[-1]["choices"][0]["finish_reason"] == "function_call"


def test_tools_are_called_in_the_same_form(say):
    body = {"tools": [{"type": "function", "function": FUNCTION}]}
    choice = converse(body, say(CALL))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])["city"] == "Oslo"


def test_the_model_stops_where_the_function_would_answer(say):
    model = say(f"{CALL} it snows\nThought: so")
    answer = converse({"functions": [FUNCTION]}, model)
    message = answer["choices"][0]["message"]
    assert message["function_call"]["arguments"] == '{"city": "Oslo"}'
    assert answer["usage"]["completion_tokens"] == len(model.text.tokenizer.encode(CALL))
    assert converse({}, say("Observation: 7"))["choices"][0]["message"]["content"]


def test_a_result_is_put_into_the_open_turn_and_the_thought_goes_on(say):
    model = say(ANSWER.removeprefix("Thought:"))
    call = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    messages = [
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": "I should look.", "function_call": call},
        {"role": "function", "name": "get_weather", "content": "rain"},
    ]
    message = converse({"messages": messages, "functions": [QWEN_FUNCTION]}, model)["choices"][0][
        "message"
    ]
    assert message["content"] == "It rains.\nBring a coat."
    assert message["reasoning_content"] == "I now know the final answer."
    (prompt,) = prompts(model)
    head, turn = prompt.split("Question: Oslo?<|im_end|>\n")
    assert "get_weather: Call this tool to interact with the Weather API." in head
    assert "should be one of [get_weather]" in head
    assert turn == (
        "<|im_start|>assistant\nThought: I should look.\nAction: get_weather\n"
        'Action Input: {"city": "Oslo"}\nObservation: rain\nThought:'
    )


def test_without_functions_the_prompt_is_chatml_alone(say):
    model = say("Hello")
    converse({}, model)
    assert prompts(model) == [
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_a_forced_call_is_written_within_its_schema(say):
    model = say(CALL)
    choice = {"name": "get_weather"}
    converse({"functions": [FUNCTION], "function_call": choice}, model)
    constraint = model.worker._engine.added[0].constraint
    assert constraint is not None
    for token in model.text.tokenizer.encode(CALL):
        assert constraint.mask()[token // 32] >> (token % 32) & 1, "what was said is allowed"
        constraint.accept(token)
    assert constraint.is_complete
    assert "get_weather" in calls_grammar("react", [Function("get_weather")], is_parallel=False)


def test_a_length_of_prompt_and_answer_together_is_kept(say):
    model = say("Hello you and many others " * 4)
    whole = converse({}, model)["usage"]
    limit = whole["prompt_tokens"] + 5
    usage = converse({"max_length": limit}, model)["usage"]
    assert usage["total_tokens"] == limit
    refused = post(CHAT_PATH, said({"max_length": 5}), model=model)
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "max_length"
