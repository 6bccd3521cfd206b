"""Chat messages as clients send them, made into what chat templates read.

Templates expect content as a string, arguments of tool calls as objects, and know few roles.
"""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, Any]

# Names under which clients send an assistant's earlier reasoning; templates read the first.
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


def template_messages(messages: list[Message], *, knows_developer: bool) -> list[Message]:
    """A copy of the messages for a template.

    Text parts are joined by newlines, no content is an empty one, and a developer is the system
    where the template (`knows_developer`) says nothing of developers.
    """
    return [_template_message(message, knows_developer) for message in messages]


def _template_message(message: Message, knows_developer: bool) -> Message:
    message = message | {"content": _content(message.get("content"))}
    if message["role"] == "developer" and not knows_developer:
        message["role"] = "system"
    if message["role"] == "function":
        message["role"] = "tool"
    if message.get("function_call"):
        message["tool_calls"] = [{"type": "function", "function": message.pop("function_call")}]
    if message.get("tool_calls"):
        message["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    given = (message[name] for name in _REASONING_FIELDS if message.get(name) is not None)
    reasoning = next(given, None)
    if reasoning is not None:
        message["reasoning_content"] = reasoning
        message.setdefault("thinking", reasoning)
    return message


def _content(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] if "text" in part else part["refusal"] for part in content)
    return content or ""


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    if isinstance(function["arguments"], dict):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call  # the model wrote something else; the template gets it as it is
    if not isinstance(arguments, dict):
        return call
    return call | {"function": function | {"arguments": arguments}}
