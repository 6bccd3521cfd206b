"""A conversation of items as the messages that chat templates read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence

from engines.errors import InvalidRequest
from server.chat_task import Message
from server.schema.response_items import (
    ConversationItem,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputText,
    MessageItem,
    OutputPart,
    OutputRefusal,
    OutputText,
    ReasoningItem,
)

_LEADING = ("system", "developer")


def to_messages(items: Iterable[ConversationItem], instructions: str | None) -> list[Message]:
    """Chat messages of a conversation, the instructions first.

    Reasoning, a message and calls that follow each other are one message of the assistant, as
    they are in chat.
    """
    messages: list[Message] = []
    for item in items:
        if isinstance(item, FunctionCallOutputItem):
            content = _text(item.output)
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
        elif isinstance(item, MessageItem) and item.role != "assistant":
            messages.append({"role": item.role, "content": _text(item.content)})
        else:
            _add_to_assistant(messages, item)
    return messages if instructions is None else _instructed(messages, instructions)


def check_calls(history: Sequence[ConversationItem], items: Sequence[ConversationItem]) -> None:
    """Check that every output belongs to a call before it: else a turn was lost on the way.

    Raises:
        InvalidRequest: One does not.
    """
    known = {item.call_id for item in history if isinstance(item, FunctionCallItem)}
    for index, item in enumerate(items):
        if isinstance(item, FunctionCallItem):
            known.add(item.call_id)
        elif isinstance(item, FunctionCallOutputItem) and item.call_id not in known:
            raise InvalidRequest(
                f"input[{index}].call_id is {item.call_id!r}, but no function_call before it has "
                "that call_id: send the call too, or the previous_response_id that has it",
                f"input[{index}].call_id",
            )


def reasoning_text(item: ReasoningItem) -> str:
    """What was thought, from whichever field has it."""
    if item.content:
        return "\n".join(part.text for part in item.content)
    if item.encrypted_content:
        return _opened(item.encrypted_content)
    return "\n".join(part.text for part in item.summary)


def sealed(text: str) -> str:
    """A reasoning for `encrypted_content`, which keeps no secret."""
    return base64.b64encode(text.encode()).decode()


def _opened(sealed_text: str) -> str:
    try:
        return base64.b64decode(sealed_text, validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            "encrypted_content of a reasoning item is not of this server: leave the item out",
            "input",
        ) from None


def _add_to_assistant(
    messages: list[Message], item: MessageItem | FunctionCallItem | ReasoningItem
) -> None:
    if isinstance(item, ReasoningItem):
        thought = reasoning_text(item)
        _assistant(messages, "reasoning_content", "content", "tool_calls").update(
            reasoning_content=thought
        )
    elif isinstance(item, MessageItem):
        _assistant(messages, "content", "tool_calls")["content"] = _text(item.content)
    else:
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        _assistant(messages).setdefault("tool_calls", []).append(call)


def _assistant(messages: list[Message], *not_yet: str) -> Message:
    """The assistant's message that goes on, a new one where it has said one of `not_yet`."""
    last = messages[-1] if messages else None
    if last is None or last["role"] != "assistant" or any(last.get(name) for name in not_yet):
        last = {"role": "assistant", "content": None}
        messages.append(last)
    return last


def _instructed(messages: list[Message], instructions: str) -> list[Message]:
    """Many templates know one system message, the first."""
    if messages and messages[0]["role"] in _LEADING:
        content = f"{instructions}\n\n{messages[0]['content']}"
        return [messages[0] | {"content": content}, *messages[1:]]
    return [{"role": "system", "content": instructions}, *messages]


def _text(content: str | Sequence[InputText | OutputText | OutputRefusal | OutputPart]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(
        part.refusal if isinstance(part, OutputRefusal) else part.text for part in content
    )
