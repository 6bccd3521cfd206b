"""What chat templates get to read of the messages that clients send."""

import pytest

from server.text.messages import template_messages


def convert(message, knows_developer=False):
    return template_messages([message], knows_developer=knows_developer)[0]


def test_text_parts_become_one_string():
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    assert convert({"role": "user", "content": parts})["content"] == "a\nb"


def test_content_that_is_left_out_is_an_empty_string():
    assert convert({"role": "assistant", "tool_calls": []})["content"] == ""
    assert convert({"role": "assistant", "content": None})["content"] == ""


def test_a_developer_is_the_system_where_the_template_knows_no_developers():
    message = {"role": "developer", "content": "a"}
    assert convert(message)["role"] == "system"
    assert convert(message, knows_developer=True)["role"] == "developer"
    assert message["role"] == "developer", "the client's message is not changed"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ("not json", "not json"),
        ("[1]", "[1]"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_of_tool_calls_become_objects_where_they_are_some(arguments, expected):
    call = {"function": {"name": "f", "arguments": arguments}}
    converted = convert({"role": "assistant", "tool_calls": [call]})
    assert converted["tool_calls"][0]["function"] == {"name": "f", "arguments": expected}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_earlier_reasoning_is_found_under_the_name_that_templates_read(name):
    message = convert({"role": "assistant", "content": "a", name: "because"})
    assert message["reasoning_content"] == "because"
