"""What a chat request makes of its messages, tools and variables: the prompt of the engine."""

import json

import pytest

from tests.server.apps import tiny_engine, tiny_model, tiny_text
from tests.server.conversation import converse
from tests.server.fakes import scripted_engine, served_model, write_text_files

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOL = {"type": "function", "function": {"parameters": {}, "name": "f", "own_field": 1}}
TOOLS_TEMPLATE = (
    "{# <tool_call> #}{{ tools | tojson }} {{ enable_thinking | default('unset') }} {{ language }}"
)


def prompt_of(body, template=None, tmp_path=None):
    text = tiny_text()
    if template is not None:
        text = type(text).load(write_text_files(tmp_path, template))
    engine = scripted_engine(text, "a")
    converse({"max_tokens": 1} | body, served_model(text, engine))
    seq = engine.added[0]
    return text.decode(seq.token_ids[: seq.num_prompt_tokens])


def test_messages_of_all_roles_reach_the_template():
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "9", "tool_call_id": "call_1"},
    ]
    assert prompt_of({"messages": messages}) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne\ntwo<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\n9<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "null unset "),
        ({"tools": [TOOL]}, json.dumps([TOOL]) + " unset "),
        ({"tools": [TOOL], "tool_choice": "auto"}, json.dumps([TOOL]) + " unset "),
        ({"tools": [TOOL], "tool_choice": "none"}, "null unset "),
        ({"tools": []}, "null unset "),
        ({"enable_thinking": False}, "null False "),
        ({"chat_template_kwargs": {"enable_thinking": True, "language": "de"}}, "null True de"),
    ],
)
def test_tools_and_variables_reach_the_template(tmp_path, body, expected):
    assert prompt_of(body, TOOLS_TEMPLATE, tmp_path) == expected


def test_a_final_message_is_continued_when_asked():
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]
    prompt = prompt_of({"messages": messages, "continue_final_message": True})
    assert prompt.endswith("<|im_start|>assistant\nWell,")
    prompt = prompt_of({"messages": messages, "add_generation_prompt": False})
    assert prompt.endswith("Well,<|im_end|>\n")


def test_a_large_message_is_encoded_off_the_loop_to_the_same_ids():
    content = "The quick brown fox. " * 4000
    engine = tiny_engine("a", max_context=100_000)
    converse({"messages": [{"role": "user", "content": content}]}, tiny_model(engine))
    expected = tiny_text().encode_chat([{"role": "user", "content": content}])
    assert engine.added[0].token_ids[: len(expected)] == expected
