"""`/v1/chat/completions`: what of a body is refused by name, and how Qwen's functions are read."""

from __future__ import annotations

from typing import Any

from server.schema.response_body import check_type, objects
from server.schema.unsupported import CHAT, check_supported

_PARTS = frozenset({"text", "refusal"})
_FUNCTIONS = frozenset({"function"})


def prepare(body: Any) -> Any:
    """The body with functions in OpenAI's form, so that it can be decoded.

    Raises:
        ApiError: 400, it asks for what this server does not have; `param` names the field.
    """
    if not isinstance(body, dict):
        return body
    check_supported(body, CHAT)
    for index, message in enumerate(objects(body.get("messages"))):
        content = message.get("content") if isinstance(message, dict) else None
        for part_index, part in enumerate(objects(content)):
            field = f"messages[{index}].content[{part_index}]"
            check_type(part, _PARTS, field, "this model reads no images, sounds or files")
    for index, tool in enumerate(objects(body.get("tools"))):
        check_type(tool, _FUNCTIONS, f"tools[{index}]", "functions are the only tools here")
    functions = body.get("functions")
    if not isinstance(functions, list):
        return body
    return body | {"functions": [_in_openais_form(function) for function in functions]}


def _in_openais_form(function: Any) -> Any:
    """Qwen's server knew another form, with names and descriptions for people and for the model."""
    if not isinstance(function, dict):
        return function
    read = dict(function)
    if "name" not in read and "name_for_model" in read:
        read["name"] = read["name_for_model"]
    if "description" not in read and "description_for_model" in read:
        read["description"] = read["description_for_model"]
    parameters = read.get("parameters")
    if isinstance(parameters, list) and all(map(_is_parameter, parameters)):
        read["parameters"] = {
            "type": "object",
            "properties": {each["name"]: _schema(each) for each in parameters},
            "required": [each["name"] for each in parameters if each.get("required")],
        }
    return read


def _is_parameter(parameter: Any) -> bool:
    return isinstance(parameter, dict) and isinstance(parameter.get("name"), str)


def _schema(parameter: dict[str, Any]) -> Any:
    schema = parameter.get("schema", {})
    return schema if isinstance(schema, dict | bool) else {}
