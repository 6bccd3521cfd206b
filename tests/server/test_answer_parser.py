"""Reasoning and tool calls out of text: any cut gives the same, and marks in strings are text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.parsing.answer_parser import AnswerParser
from server.text.parsing.events import CallArguments, CallBegin, Content, Event, Reasoning
from server.text.parsing.json_call import JsonCallParser
from server.text.parsing.reasoning import ReasoningParser
from server.text.parsing.xml_call import XmlCallParser

SCHEMAS = {
    "write": {"properties": {"text": {"type": "string"}, "count": {"type": "integer"}}},
    "f": {},
}


def new_parser(form: str = "json", *, is_open: bool = False) -> AnswerParser:
    new_call = JsonCallParser if form == "json" else lambda: XmlCallParser(SCHEMAS)
    return AnswerParser(new_call, ReasoningParser(is_open=is_open))


def merge(events: list[Event]) -> list[Event]:
    """Neighbouring pieces of one kind, and of one call, as one."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, Content | Reasoning) and type(last) is type(event):
            merged[-1] = type(event)(last.text + event.text)
        elif isinstance(event, CallArguments) and isinstance(last, CallArguments):
            merged[-1] = CallArguments(event.call, last.text + event.text)
        else:
            merged.append(event)
    return merged


def parse(text: str, cuts: list[int] | None = None, form: str = "json", **options) -> list[Event]:
    parser = new_parser(form, **options)
    places = sorted({min(cut, len(text)) for cut in cuts or []})
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    events = [event for piece in pieces for event in parser.push(piece)]
    return merge(events + parser.flush())


# Alphabets out of which marks, and halves of marks, are likely to be put together.
MARKS = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<", "</", "tool", "_call>", "\n"]
MARKS += ["<parameter=x>", "</parameter>", "</function>", "<function=f>", "{", "}", '"', "\\", "a"]
confusing = st.lists(st.sampled_from(MARKS), max_size=12).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | confusing | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(confusing, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(confusing, json_values, max_size=3)
cut_lists = st.lists(st.integers(0, 400), max_size=30)


@settings(max_examples=300, deadline=None)
@given(st.text("ab <>\n", max_size=20) | confusing, st.lists(arguments, max_size=3), cut_lists)
def test_json_calls_come_back_as_they_were_written(thought, calls, cuts):
    thought = thought.replace("</think>", "").strip("\n")
    text = f"<think>\n{thought}\n</think>\n\nHere:" if thought else "Here:"
    for call in calls:
        body = json.dumps({"name": "write", "arguments": call}, ensure_ascii=False)
        text += f"\n<tool_call>\n{body}\n</tool_call>"
    expected: list[Event] = [Reasoning(thought)] if thought else []
    expected.append(Content("Here:"))
    for index, call in enumerate(calls):
        raw = json.dumps(call, ensure_ascii=False)
        expected += [CallBegin(index, "write"), CallArguments(index, raw)]
    if "</think>" not in thought:
        assert parse(text, cuts) == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(confusing, st.integers()), max_size=3),
    cut_lists,
)
def test_xml_calls_become_the_json_that_their_schema_means(calls, cuts):
    text, expected = "Go.", [Content("Go.")]
    for index, (value, count) in enumerate(calls):
        # A value in which a parameter or the function ends is not a value in this form.
        value = value.replace("</parameter>", "</p>")
        text += f"\n<tool_call>\n<function=write>\n<parameter=text>\n{value}\n</parameter>\n"
        text += f"<parameter=count>\n{count}\n</parameter>\n</function>\n</tool_call>"
        raw = json.dumps({"text": value, "count": count}, ensure_ascii=False)
        expected += [CallBegin(index, "write"), CallArguments(index, raw)]
    assert parse(text, cuts, "xml") == expected


@settings(max_examples=500, deadline=None)
@given(confusing, confusing, cut_lists, st.sampled_from(["json", "xml"]), st.booleans())
def test_the_cut_of_any_text_changes_nothing(first, second, cuts, form, is_open):
    text = f'{first}<tool_call>{{"name": "f", "arguments": {{}}}}{second}'
    assert parse(text, cuts, form, is_open=is_open) == parse(text, [], form, is_open=is_open)


def test_every_cut_of_one_text_into_two_and_into_characters():
    text = '<think>\nhm </thin\n</think>\n\nok <tool_cal\n<tool_call>\n{"name": "f", "arguments": '
    text += (
        '{"a": "</tool_call><tool_call>\\"}"}}\n</tool_call>\n<tool_call>{"name":"f"}</tool_call>'
    )
    whole = parse(text)
    assert whole == [
        Reasoning("hm </thin"),
        Content("ok <tool_cal"),
        CallBegin(0, "f"),
        CallArguments(0, '{"a": "</tool_call><tool_call>\\"}"}'),
        CallBegin(1, "f"),
        CallArguments(1, "{}"),
    ]
    for cut in range(len(text)):
        assert parse(text, [cut]) == whole
    assert parse(text, list(range(len(text)))) == whole


def test_a_value_of_line_breaks_loses_one_on_either_side_wherever_it_is_cut():
    text = "<tool_call><function=write><parameter=text>\n\n\n</parameter></function></tool_call>"
    for cut in range(len(text)):
        assert parse(text, [cut], "xml")[1] == CallArguments(0, '{"text": "\\n"}')


def test_arguments_are_told_while_they_are_written():
    parser = new_parser()
    events = parser.push('<tool_call>{"name": "write", "arguments": {"text": "on')
    assert events == [CallBegin(0, "write"), CallArguments(0, '{"text": "on')]
    assert parser.push("ce upon") == [CallArguments(0, "ce upon")]


def test_arguments_before_the_name_wait_for_it():
    text = '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>'
    assert parse(text) == [CallBegin(0, "f"), CallArguments(0, '{"a": 1}')]


@pytest.mark.parametrize(
    ("value", "expected"),
    [('"{\\"a\\": 1}"', '{"a": 1}'), ("null", "{}"), ('{ "a" : [1, {}] }', '{ "a" : [1, {}] }')],
)
def test_arguments_in_other_shapes(value, expected):
    text = f'<tool_call>{{"name": "f", "arguments": {value}}}</tool_call>'
    assert parse(text) == [CallBegin(0, "f"), CallArguments(0, expected)]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call>hello</tool_call>",
        '<tool_call>{"a": 1}</tool_call>',
        "<tool_call",
    ],
)
def test_what_is_no_call_stays_text(text):
    assert parse(f"see {text}") == [Content(f"see {text}")]


def test_a_call_without_its_last_mark_counts_and_text_behind_it_is_text():
    text = '<tool_call>{"name": "f", "arguments": {}} and more'
    assert parse(text) == [CallBegin(0, "f"), CallArguments(0, "{}"), Content("and more")]
    assert parse(text[: text.index(" and")]) == [CallBegin(0, "f"), CallArguments(0, "{}")]


def test_reasoning_that_the_prompt_began_ends_at_the_mark():
    assert parse("I see.\n</think>\n\nYes.", is_open=True) == [Reasoning("I see."), Content("Yes.")]
    assert parse("I see", is_open=True) == [Reasoning("I see")]


def test_calls_inside_of_reasoning_are_thoughts():
    text = '<think>maybe <tool_call>{"name": "f"}</tool_call></think>No.'
    assert parse(text) == [
        Reasoning('maybe <tool_call>{"name": "f"}</tool_call>'),
        Content("No."),
    ]


def test_a_mark_in_the_middle_of_an_answer_is_text():
    assert parse("Use <think> tags.") == [Content("Use <think> tags.")]


def test_no_reasoning_and_no_calls_leave_the_text_alone():
    text = ' <think> <tool_call>{"name": "f"}</tool_call> \n'
    parser = AnswerParser()
    assert merge(parser.push(text) + parser.flush()) == [Content(text)]


@pytest.mark.parametrize("form", ["json", "xml"])
def test_no_more_than_the_beginning_of_a_mark_is_held_back(form):
    """So every character is looked at a bounded number of times."""
    bodies = {
        "json": '<tool_call>{"name": "write", "arguments": {"text": "' + "</tool_call" * 50,
        "xml": "<tool_call><function=write><parameter=text>" + "</parameter" * 50,
    }
    parser, told = new_parser(form), 0
    for place, char in enumerate(bodies[form]):
        told += sum(len(e.text) for e in parser.push(char) if isinstance(e, CallArguments))
        assert place - told < 80
