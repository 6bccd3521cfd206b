"""The forms in which Qwen models call functions: which one a template teaches, parsed and enforced.

Two begin and end with the same marks. Between them is a JSON object (Hermes, Qwen2.5, Qwen3), or a
function and its parameters as elements (Qwen3-Coder and later). The first Qwen writes lines of text
(`parsing/react.py`), one call an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from server.text.parsing.events import CALL_BEGIN, CALL_END, CallParser
from server.text.parsing.json_call import JsonCallParser
from server.text.parsing.react import ACTION, INPUT, OBSERVATION
from server.text.parsing.xml_call import XmlCallParser

CallForm = Literal["json", "xml", "react"]

# Just as templates write earlier calls, so that a model never begins a text it was not taught.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


_LONGEST_THOUGHT = 400  # characters before a forced call in lines of text


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the model may call; `parameters` is a JSON schema, by default any object."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


def call_form(template: str) -> CallForm | None:
    """The form that a chat template teaches; None where it teaches none."""
    if "<function=" in template:
        return "xml"
    if CALL_BEGIN in template:
        return "json"
    return "react" if INPUT in template else None


def new_call_parser(form: CallForm, functions: Sequence[Function]) -> Callable[[], CallParser]:
    """Makes a parser for each call between marks."""
    if form == "json":
        return JsonCallParser
    schemas = {function.name: function.parameters for function in functions}
    return lambda: XmlCallParser(schemas)


def calls_grammar(
    form: CallForm,
    functions: Sequence[Function],
    *,
    is_parallel: bool,
    marks_are_tokens: bool = True,
) -> str:
    """A Lark grammar of one call or, `is_parallel`, of one and more, with their marks.

    Raises:
        ValueError: The form cannot enforce a function's schema; the message says what of it.
    """
    if form == "react":
        return _react_grammar(functions)
    calls = "call more*" if is_parallel else "call"
    return "\n".join(
        [
            f"start: {calls}",
            f"call: {_mark(CALL_BEGIN, marks_are_tokens)} body",
            'more: "\\n" call',
            *_body(form, functions, marks_are_tokens),
        ]
    )


def calls_or_value_grammar(
    form: CallForm,
    functions: Sequence[Function],
    schema: Any,
    *,
    is_parallel: bool,
    marks_are_tokens: bool = True,
) -> str:
    """A Lark grammar of calls, or of a JSON value that a schema allows.

    Raises:
        ValueError: As `calls_grammar`.
    """
    calls = calls_grammar(
        form, functions, is_parallel=is_parallel, marks_are_tokens=marks_are_tokens
    )
    return f"start: calls | value\nvalue: %json {json.dumps(schema)}\n" + calls.replace(
        "start:", "calls:", 1
    )


def body_grammar(
    form: CallForm, functions: Sequence[Function], *, marks_are_tokens: bool = True
) -> str:
    """A Lark grammar of one call from behind its first mark to the end of its last.

    Raises:
        ValueError: As `calls_grammar`.
    """
    return "\n".join(["start: body", *_body(form, functions, marks_are_tokens)])


def _body(form: CallForm, functions: Sequence[Function], marks_are_tokens: bool) -> list[str]:
    choices = " | ".join(f"f{index}" for index in range(len(functions)))
    rules = [f'body: "\\n" ({choices}) "\\n" {_mark(CALL_END, marks_are_tokens)}']
    write = _json_rules if form == "json" else _xml_rules
    for index, function in enumerate(functions):
        rules += write(f"f{index}", function)
    return rules


def _react_grammar(functions: Sequence[Function]) -> str:
    """A thought in one line, then an action and its input."""
    choices = " | ".join(f"f{index}" for index in range(len(functions)))
    end = _quote(f"\n{OBSERVATION}")
    rules = [f'start: /[^\\n]{{1,{_LONGEST_THOUGHT}}}/ "\\n" ({choices}) {end}']
    for index, function in enumerate(functions):
        head = _quote(f"{ACTION} {function.name}\n{INPUT} ")
        rules.append(f"f{index}: {head} {_json(_as_object(function.parameters))}")
    return "\n".join(rules)


def _json_rules(rule: str, function: Function) -> list[str]:
    head = f'{{"name": {json.dumps(function.name, ensure_ascii=False)}, "arguments": '
    return [
        f'{rule}: {_quote(head)} {rule}_arguments "}}"',
        f"{rule}_arguments: {_json(_as_object(function.parameters))}",
    ]


def _xml_rules(rule: str, function: Function) -> list[str]:
    schema = _as_object(function.parameters)
    required = set(schema.get("required", ()))
    shared = ("$defs", "definitions")
    definitions: dict[str, Any] = {key: schema[key] for key in shared if key in schema}
    parts, rules = [], []
    for index, (name, declared) in enumerate(schema.get("properties", {}).items()):
        part = f"{rule}_{index}"
        parts.append(part if name in required else f"{part}?")
        head, tail = _quote(f"<parameter={name}>\n"), _quote("\n</parameter>\n")
        rules.append(f"{part}: {head} {part}_value {tail}")
        rules.append(f"{part}_value: {_xml_value(declared, definitions)}")
    head, tail = _quote(f"<function={function.name}>\n"), _quote("</function>")
    return [f"{rule}: {' '.join([head, *parts, tail])}", *rules]


def _xml_value(schema: Any, definitions: Mapping[str, Any]) -> str:
    """Text is written bare, and everything else as JSON."""
    if not isinstance(schema, dict) or schema.get("type") != "string":
        return _json({**schema, **definitions} if isinstance(schema, dict) else schema)
    if "enum" in schema:
        return " | ".join(_quote(str(text)) for text in schema["enum"])
    if "pattern" in schema or "format" in schema or "maxLength" in schema:
        raise ValueError(
            "a string parameter has a pattern, format or maxLength, which cannot be enforced in "
            "this model's form of calls"
        )
    return r"/[^<]*(<[^\/][^<]*|<\/[^p][^<]*)*/"


def _as_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object"} | dict(schema)


def _json(schema: object) -> str:
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": _COMPACT}
    return f"%json {json.dumps(schema)}"


def _mark(mark: str, is_token: bool) -> str:
    """A token of its own is no text to the grammar, and the other way round."""
    return mark if is_token else _quote(mark)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
