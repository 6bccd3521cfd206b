"""A conversation in Anthropic's shape as the messages that chat templates read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engines.errors import InvalidRequest
from server.chat_task import ChatTask, Message
from server.schema.anthropic import (
    AssistantTurn,
    CountTokensRequest,
    MessageRequest,
    PlainText,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserTurn,
)
from server.schema.sampling import SamplingFields


def to_task(request: CountTokensRequest) -> ChatTask:
    """What is asked of the next message.

    Raises:
        InvalidRequest: Fields contradict each other, or a result belongs to no call.
    """
    messages = _messages(request)
    continues = messages[-1]["role"] == "assistant"
    functions = request.offered_functions()
    sampling, limit = SamplingFields(), None
    if isinstance(request, MessageRequest):
        sampling, limit = request.sampling(), request.max_tokens
    return ChatTask(
        messages=messages,
        sampling=sampling,
        answer_limit=limit,
        is_limit_cut=True,
        tools=[_chat_tool(tool) for tool in request.tools or ()] if functions else None,
        functions=functions,
        must_call=request.must_call,
        is_parallel=request.is_parallel,
        grammar=request.grammar(),
        thinking_budget=request.thinking_budget,
        variables=request.template_variables(),
        opens_turn=not continues,
        continues=continues,
    )


def _messages(request: CountTokensRequest) -> list[Message]:
    messages: list[Message] = []
    if request.system:
        messages.append({"role": "system", "content": _text(request.system)})
    known: set[str] = set()
    for index, turn in enumerate(request.messages):
        if isinstance(turn, UserTurn):
            _add_user(messages, turn, known, index)
        else:
            message = _assistant(turn)
            known.update(call["id"] for call in message.get("tool_calls", ()))
            messages.append(message)
    _check_end(messages, len(request.messages) - 1)
    return messages


def _add_user(messages: list[Message], turn: UserTurn, known: set[str], index: int) -> None:
    if isinstance(turn.content, str):
        messages.append({"role": "user", "content": turn.content})
        return
    texts: list[TextBlock] = []
    for block_index, block in enumerate(turn.content):
        if isinstance(block, TextBlock):
            texts.append(block)
            continue
        if block.tool_use_id not in known:
            field = f"messages[{index}].content[{block_index}].tool_use_id"
            raise InvalidRequest(
                f"{field} is {block.tool_use_id!r}, but no tool_use before it has that id", field
            )
        messages.append(_tool_result(block))
    if texts or not turn.content:
        messages.append({"role": "user", "content": _text(texts)})


def _tool_result(block: ToolResultBlock) -> Message:
    content = _text(block.content or "")
    if block.is_error:
        content = f"Error: {content}"
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _assistant(turn: AssistantTurn) -> Message:
    if isinstance(turn.content, str):
        return {"role": "assistant", "content": turn.content}
    texts = [block for block in turn.content if isinstance(block, TextBlock)]
    message: Message = {"role": "assistant", "content": _text(texts)}
    thoughts = [block.thinking for block in turn.content if isinstance(block, ThinkingBlock)]
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    calls = [_call(block) for block in turn.content if isinstance(block, ToolUseBlock)]
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: ToolUseBlock) -> dict[str, Any]:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return {
        "id": block.id,
        "type": "function",
        "function": {"name": block.name, "arguments": arguments},
    }


def _check_end(messages: list[Message], index: int) -> None:
    """The last turn is the user's, or the beginning of the answer."""
    last = messages[-1]
    if last["role"] == "assistant" and (last.get("tool_calls") or not last["content"]):
        what = "calls a tool" if last.get("tool_calls") else "is empty"
        raise InvalidRequest(
            f"messages[{index}] is the assistant's and {what}, so no answer can go on from it",
            f"messages[{index}].content",
        )


def _chat_tool(tool: Any) -> dict[str, Any]:
    function = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function | {"parameters": tool.input_schema}}


def _text(content: str | Sequence[TextBlock | PlainText]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
