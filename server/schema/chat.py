"""`/v1/chat/completions`: the request, the answer and the chunks of a streamed answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engines.errors import InvalidRequest
from server.schema.sampling import MAX_TOP_LOGPROBS, SamplingFields, unsupported
from server.schema.usage import ChoiceLogprobs, CompletionUsage
from server.text.chat_template import RESERVED_VARIABLES

MAX_MESSAGES = 4096
MAX_TOOLS = 128
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


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
    reasoning_content: str | None = None
    reasoning: str | None = None


class ToolMessage(_Message, tag="tool"):
    """What a tool answered."""

    content: Content
    tool_call_id: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionDefinition(msgspec.Struct, kw_only=True):
    """`parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, kw_only=True):
    """A function that the model may call; the template gets it just as it was sent."""

    type: Literal["function"]
    function: FunctionDefinition


class ChatCompletionRequest(SamplingFields, kw_only=True):
    """What a client sends. Beside OpenAI's fields: `top_k`, `min_p`, `repetition_penalty`,
    `ignore_eos`, `stop_token_ids`, `skip_special_tokens` and those of the chat template.
    """

    model: str
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None  # short for chat_template_kwargs
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def answer_limit(self) -> int | None:
        """Tokens of an answer, None for what the context has room for."""
        limit = self.max_completion_tokens
        return self.max_tokens if limit is None else limit

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def offers_tools(self) -> bool:
        return bool(self.tools) and self.tool_choice != "none"

    def template_variables(self) -> dict[str, Any]:
        thinking = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        return thinking | (self.chat_template_kwargs or {})

    def check(self) -> None:
        """Check what fields say together.

        Raises:
            InvalidRequest: Two fields contradict each other.
            ApiError: A value is OpenAI's, but not supported here.
        """
        self.check_stream_options()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest(
                f"top_logprobs is {self.top_logprobs}, but it needs logprobs to be true",
                "top_logprobs",
            )
        if self.max_tokens == 0:
            raise InvalidRequest("max_tokens is 0, but it must be at least 1", "max_tokens")
        if self.tool_choice not in (None, "none", "auto"):
            raise unsupported(
                f"tool_choice is {_short(self.tool_choice)}, but this server cannot force a tool "
                'call: use "auto" or "none"',
                "tool_choice",
            )
        for name in RESERVED_VARIABLES & (self.chat_template_kwargs or {}).keys():
            raise InvalidRequest(
                f"chat_template_kwargs.{name} is set, but {name} is a field of the request itself",
                f"chat_template_kwargs.{name}",
            )
        self._check_messages()
        self._check_continuation()

    def _check_messages(self) -> None:
        for index, message in enumerate(self.messages):
            if not isinstance(message, AssistantMessage):
                continue
            if message.content is None and not message.tool_calls and message.refusal is None:
                raise InvalidRequest(
                    f"messages[{index}].content is null, but only an assistant message with "
                    "tool_calls may leave it out",
                    f"messages[{index}].content",
                )

    def _check_continuation(self) -> None:
        if not self.continue_final_message:
            return
        if self.add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt are both true, but only one can "
                "be",
                "continue_final_message",
            )
        last = self.messages[-1]
        if not isinstance(last, AssistantMessage) or not last.content:
            raise InvalidRequest(
                "continue_final_message is true, but the last message is not an assistant message "
                "with content",
                "continue_final_message",
            )


class ChatMessage(msgspec.Struct, kw_only=True):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None


class ChatChoice(msgspec.Struct, kw_only=True):
    index: int
    message: ChatMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    system_fingerprint: str


class ChatDelta(msgspec.Struct, kw_only=True):
    """What a chunk adds: the role at first, then text, at last nothing."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, kw_only=True):
    index: int
    delta: ChatDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(msgspec.Struct, kw_only=True):
    """One event of a streamed answer. With `include_usage` all chunks have `usage`, which is null
    but in the last, which has no choices.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
