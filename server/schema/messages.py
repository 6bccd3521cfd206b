"""The messages of a conversation, as clients send them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class TextPart(msgspec.Struct, tag_field="type", tag="text", kw_only=True):
    """A piece of a message's content."""

    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal", kw_only=True):
    """What an assistant once said instead of an answer; read like text."""

    refusal: str


Content = str | list[TextPart | RefusalPart]


class FunctionCall(msgspec.Struct, kw_only=True):
    """`arguments` is JSON as the model wrote it; an object is taken too."""

    name: str
    arguments: str | dict[str, Any]


class ToolCall(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A call that the assistant made earlier."""

    function: FunctionCall
    id: str | None = None
    type: Literal["function"] = "function"


class _Message(msgspec.Struct, tag_field="role", kw_only=True, omit_defaults=True):
    name: str | None = None


class SystemMessage(_Message, tag="system"):
    content: Content


class DeveloperMessage(_Message, tag="developer"):
    """Becomes a system message where the model's template knows no developers."""

    content: Content


class UserMessage(_Message, tag="user"):
    content: Content


class AssistantMessage(_Message, tag="assistant"):
    """`content` may be left out beside `tool_calls`."""

    content: Content | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ToolMessage(_Message, tag="tool"):
    """What a tool answered."""

    content: Content
    tool_call_id: str | None = None


class FunctionMessage(_Message, tag="function"):
    """What a function answered, in the older form."""

    content: Content | None


Message = (
    SystemMessage
    | DeveloperMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | FunctionMessage
)
