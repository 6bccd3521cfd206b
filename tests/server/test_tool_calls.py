"""The forms of calls: told by their templates, enforced by grammars that the parsers read back."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.grammar import GrammarCompiler, GrammarSpec
from server.text.parsing.answer_parser import AnswerParser
from server.text.parsing.events import CALL_BEGIN, CallArguments, CallBegin
from server.text.tool_calls import (
    Function,
    body_grammar,
    call_form,
    calls_grammar,
    new_call_parser,
)
from tests.server.test_grammar import EOS, PATH, VOCAB_SIZE, write

WEATHER = Function(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Oslo"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "exact": {"type": "boolean"},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)
STOP = Function("stop", {"type": "object", "properties": {}, "additionalProperties": False})
FUNCTIONS = [WEATHER, STOP]


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(PATH.read_text, VOCAB_SIZE, [EOS])


def read(form, text):
    """The calls of a text, by name and arguments."""
    parser = AnswerParser(new_call_parser(form, FUNCTIONS))
    calls = []
    for event in parser.push(text) + parser.flush():
        if isinstance(event, CallBegin):
            calls.append([event.name, ""])
        else:
            assert isinstance(event, CallArguments), f"{event} is not part of a call"
            calls[-1][1] += event.text
    return [(name, json.loads(arguments)) for name, arguments in calls]


def test_the_form_is_told_by_the_template():
    demo = (PATH.parent / "chat_template.jinja").read_text()
    assert call_form(demo) == "json"
    assert call_form("<tool_call>\n<function=name>") == "xml"
    assert call_form("{{ messages }}") is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["json", "xml"]))
def test_forced_calls_are_read_back_and_validate(compiler, seed, form):
    source = calls_grammar(form, FUNCTIONS, is_parallel=False)
    text = write(compiler, GrammarSpec("lark", source, "tools"), seed, max_tokens=120)
    if text is None:
        return  # an endless number
    (call,) = read(form, text)
    schemas = {function.name: function.parameters for function in FUNCTIONS}
    jsonschema.validate(call[1], schemas[call[0]])


@pytest.mark.parametrize("form", ["json", "xml"])
def test_a_grammar_of_one_call_ends_after_it_and_one_of_many_goes_on(compiler, form):
    one, many = (
        GrammarSpec("lark", calls_grammar(form, [STOP], is_parallel=is_parallel), "tools")
        for is_parallel in (False, True)
    )
    text = write(compiler, one, 0)
    assert read(form, text) == [("stop", {})]
    assert read(form, f"{text}\n{text}") == [("stop", {})] * 2
    state = compiler.new_state(many)
    assert state.mask().any()
    assert write(compiler, many, 0) == text, "the end is taken where it may come"


@pytest.mark.parametrize("form", ["json", "xml"])
def test_the_body_is_what_follows_the_first_mark(compiler, form):
    text = write(compiler, GrammarSpec("lark", body_grammar(form, [STOP]), "tools"), 0)
    assert read(form, CALL_BEGIN + text) == [("stop", {})]


def test_text_in_an_element_may_hold_other_elements(compiler):
    write_file = Function("write", {"properties": {"text": {"type": "string"}}})
    source = body_grammar("xml", [write_file])
    compiler.compile(GrammarSpec("lark", source, "tools"))


def test_what_cannot_be_enforced_in_elements_is_said():
    dated = Function("f", {"properties": {"day": {"type": "string", "format": "date"}}})
    with pytest.raises(ValueError, match="pattern, format or maxLength"):
        body_grammar("xml", [dated])
