"""`/v1/messages`: the answer, the events of a streamed one, and errors, in Anthropic's shape."""

from __future__ import annotations

from typing import Literal

import msgspec

from server.schema.anthropic import TextBlock, ThinkingBlock, ToolUseBlock
from server.schema.usage import CompletionUsage

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]
ContentBlock = TextBlock | ThinkingBlock | ToolUseBlock


class MessageUsage(msgspec.Struct, kw_only=True):
    """Tokens in and out; `input_tokens` are those that were not computed for an earlier request."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, usage: CompletionUsage) -> MessageUsage:
        """The same counts as completions tell them."""
        num_cached = usage.prompt_tokens_details.cached_tokens
        return cls(
            input_tokens=usage.prompt_tokens - num_cached,
            cache_read_input_tokens=num_cached,
            output_tokens=usage.completion_tokens,
        )


class AnthropicMessage(msgspec.Struct, kw_only=True):
    """A whole answer; at the beginning of a stream, one without content."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(msgspec.Struct, kw_only=True):
    """Tokens of a prompt."""

    input_tokens: int


class TextDelta(msgspec.Struct, tag_field="type", tag="text_delta", kw_only=True):
    text: str


class ThinkingDelta(msgspec.Struct, tag_field="type", tag="thinking_delta", kw_only=True):
    thinking: str


class InputJsonDelta(msgspec.Struct, tag_field="type", tag="input_json_delta", kw_only=True):
    partial_json: str


class StopDelta(msgspec.Struct, kw_only=True):
    """How the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageStart(msgspec.Struct, tag_field="type", tag="message_start", kw_only=True):
    message: AnthropicMessage


class ContentBlockStart(msgspec.Struct, tag_field="type", tag="content_block_start", kw_only=True):
    index: int
    content_block: ContentBlock


class ContentBlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta", kw_only=True):
    index: int
    delta: TextDelta | ThinkingDelta | InputJsonDelta


class ContentBlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop", kw_only=True):
    index: int


class MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta", kw_only=True):
    delta: StopDelta
    usage: MessageUsage


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop", kw_only=True):
    """The last event."""


class AnthropicErrorObject(msgspec.Struct, kw_only=True):
    """What went wrong."""

    type: str
    message: str


class AnthropicErrorResponse(msgspec.Struct, tag_field="type", tag="error", kw_only=True):
    """The body of every answer that is not a success, and the event that breaks off a stream."""

    error: AnthropicErrorObject
    request_id: str | None = None


MessageEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | AnthropicErrorResponse
)
