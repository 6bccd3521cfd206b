"""A request's JSON into its Struct, with errors that name the field, its value and the limit."""

from __future__ import annotations

import re
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from engines.errors import InvalidRequest

StructT = TypeVar("StructT", bound=msgspec.Struct)

_MAX_SHOWN = 64
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
    try:
        return msgspec.convert(body, request_type, strict=not is_form)
    except msgspec.ValidationError as error:
        raise _explain(str(error), body, request_type) from None


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
    if problem.startswith("Invalid enum value") and (choices := _choices(request_type, param)):
        return InvalidRequest(f"{param} is {value}, but it must be one of {choices}", param)
    return InvalidRequest(f"{param} is {value}, but {_expected(problem, param)}", param)


def _expected(problem: str, param: str) -> str:
    out_of_range = _OUT_OF_RANGE.match(problem)
    if out_of_range:
        subject = "its length" if out_of_range[1] else "it"
        return f"{subject} must be {_BOUNDS[out_of_range[2]]} {out_of_range[3].removesuffix('.0')}"
    wrong_type = _WRONG_TYPE.match(problem)
    if wrong_type:
        names = [name for name in wrong_type[1].split(" | ") if name != "null"]
        return "it must be " + " or ".join(_TYPES.get(name, name) for name in names)
    if param.endswith(".role"):
        return "it must be one of system, developer, user, assistant and tool"
    if ".content[" in param:
        return "it must be text: this model reads no images, sounds or files"
    if param == "response_format.type":
        return "it must be one of text, json_object and json_schema"
    return 'it must be "function"' if param.endswith(".type") else problem


def _choices(request_type: type, name: str) -> str:
    """The values that a field of the request takes, empty for a field further inside."""
    hint = get_type_hints(request_type).get(name)
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    literals = (arm for arm in arms if get_origin(arm) is Literal)
    return ", ".join(str(value) for arm in literals for value in get_args(arm))


def _value_at(path: str, body: Any) -> Any:
    for name, index in _STEP.findall(path):
        body = body[name] if name else body[int(index)]
    return body


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
