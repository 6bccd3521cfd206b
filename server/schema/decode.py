"""A request's JSON into its Struct, with errors that name the field, its value and the limit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from engines.errors import InvalidRequest

StructT = TypeVar("StructT", bound=msgspec.Struct)

_MAX_SHOWN = 64
_MAX_WHOLE_FLOATS = 64  # integers of one body that may be written as fractions
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_OUT_OF_RANGE = re.compile(r"Expected `\w+` (of length )?(<=|>=|<|>) ([\d.e+-]+)")
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`")
_BOUNDS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above"}
_TYPES = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def decode(body: Any, request_type: type[StructT], *, is_form: bool = False) -> StructT:
    """Check a decoded JSON body, or the text fields of a form, and build the request.

    Raises:
        InvalidRequest: The body does not fit; `param` is the path of the field.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object")
    for _ in range(_MAX_WHOLE_FLOATS):
        try:
            return msgspec.convert(body, request_type, strict=not is_form)
        except msgspec.ValidationError as error:
            whole = _with_whole_number(str(error), body)
            if whole is None:
                raise _explain(str(error), body, request_type) from None
            body = whole
    raise InvalidRequest("the body has too many integers that are written as fractions")


def _with_whole_number(message: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The body with 8 for 8.0 where an integer was expected, as some languages write them."""
    problem, _, path = message.partition(" - at `")
    steps = [name or int(index) for name, index in _STEP.findall(path.removesuffix("`"))]
    if not problem.startswith("Expected `int") or "[...]" in path or not steps:
        return None
    value: Any = body
    for step in steps:
        value = value[step]
    if not isinstance(value, float) or not value.is_integer() or abs(value) > 2**53:
        return None
    changed: dict[str, Any] = _replaced(body, steps, int(value))
    return changed


def _replaced(value: Any, steps: Sequence[str | int], changed: Any) -> Any:
    """A copy of a value with another one at a place inside of it."""
    if not steps:
        return changed
    copy = value.copy()
    copy[steps[0]] = _replaced(value[steps[0]], steps[1:], changed)
    return copy


def _explain(message: str, body: dict[str, Any], request_type: type) -> InvalidRequest:
    """msgspec writes "Expected `int` <= 128 - at `$.n`"."""
    problem, _, path = message.partition(" - at `")
    # It writes [...] for the values of a mapping and does not say which.
    path = path.removesuffix("`").removeprefix("$").replace("[...]", "")
    param = path.removeprefix(".")
    missing = _MISSING.search(problem)
    if missing:
        param = f"{param}.{missing[1]}".removeprefix(".")
        return InvalidRequest(f"{param} is missing, but it is required", param)
    value = _shown(_value_at(path, body))
    if problem.startswith("Invalid ") and (choices := _choices(request_type, param)):
        allowed = f'"{choices[0]}"' if len(choices) == 1 else f"one of {', '.join(choices)}"
        return InvalidRequest(f"{param} is {value}, but it must be {allowed}", param)
    return InvalidRequest(f"{param} is {value}, but {_expected(problem)}", param)


def _expected(problem: str) -> str:
    out_of_range = _OUT_OF_RANGE.match(problem)
    if out_of_range:
        subject = "its length" if out_of_range[1] else "it"
        return f"{subject} must be {_BOUNDS[out_of_range[2]]} {out_of_range[3].removesuffix('.0')}"
    wrong_type = _WRONG_TYPE.match(problem)
    if wrong_type:
        names = [name for name in wrong_type[1].split(" | ") if name != "null"]
        return "it must be " + " or ".join(_TYPES.get(name, name) for name in names)
    return problem


def _choices(request_type: type, path: str) -> list[str]:
    """The values that a field takes, be they literals or the tags of objects; none for others."""
    hint: Any = request_type
    for name, _ in _STEP.findall(f".{path}"):
        if not name:
            continue
        structs = [each for each in _arms(hint) if _is_struct(each)]
        tags = [str(s.__struct_config__.tag) for s in structs
                if s.__struct_config__.tag_field == name]  # fmt: skip
        if tags:
            return tags
        hints = [get_type_hints(struct).get(name) for struct in structs]
        hint = next((each for each in hints if each is not None), None)
    literals = (arm for arm in _arms(hint) if get_origin(arm) is Literal)
    return [str(value) for arm in literals for value in get_args(arm)]


def _arms(hint: Any) -> list[Any]:
    """What a union, or a list, is made of."""
    if get_origin(hint) in (Union, UnionType, list):
        return [arm for each in get_args(hint) for arm in _arms(each)]
    return [hint]


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _value_at(path: str, body: Any) -> Any:
    for name, index in _STEP.findall(path):
        body = body[name] if name else body[int(index)]
    return body


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
