"""`/v1/chat/completions`: the request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from engines.errors import InvalidRequest
from server.schema.messages import AssistantMessage, Message
from server.schema.sampling import MAX_TOP_LOGPROBS
from server.schema.tools import ToolFields
from server.text.chat_template import RESERVED_VARIABLES

MAX_MESSAGES = 4096

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatCompletionRequest(ToolFields, kw_only=True):
    """What a client sends. Beside OpenAI's fields: `top_k`, `min_p`, `repetition_penalty`,
    `ignore_eos`, `stop_token_ids`, `skip_special_tokens`, those of the chat template, those that
    vLLM has for structured output, `thinking_budget`, the most tokens of reasoning, and Qwen's
    `max_length`, the most tokens of prompt and answer together.
    """

    model: str
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_length: Annotated[int, Meta(ge=1)] | None = None  # prompt and answer together
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    reasoning_effort: ReasoningEffort | None = None
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None
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

    def template_variables(self) -> dict[str, Any]:
        return thinking_variables(
            self.reasoning_effort, self.enable_thinking, self.chat_template_kwargs
        )

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
        self.check_tools()
        check_template_variables(self.chat_template_kwargs)
        self._check_messages()
        check_continuation(self.messages, self.continue_final_message, self.add_generation_prompt)

    def _check_messages(self) -> None:
        for index, message in enumerate(self.messages):
            if not isinstance(message, AssistantMessage):
                continue
            says_nothing = message.content is None and message.refusal is None
            if says_nothing and not message.tool_calls and message.function_call is None:
                raise InvalidRequest(
                    f"messages[{index}].content is null, but only an assistant message with "
                    "tool_calls may leave it out",
                    f"messages[{index}].content",
                )


def thinking_variables(
    effort: ReasoningEffort | None, enable_thinking: bool | None, given: dict[str, Any] | None
) -> dict[str, Any]:
    """What a chat template is told of thinking; what the client gives it comes last."""
    variables: dict[str, Any] = {}
    if effort is not None:
        variables["reasoning_effort"] = effort
        variables["enable_thinking"] = effort != "none"
    if enable_thinking is not None:
        variables["enable_thinking"] = enable_thinking
    return variables | (given or {})


def check_template_variables(given: dict[str, Any] | None) -> None:
    """Raises `InvalidRequest` for a variable that is a field of the request."""
    for name in RESERVED_VARIABLES & (given or {}).keys():
        raise InvalidRequest(
            f"chat_template_kwargs.{name} is set, but {name} is a field of the request itself",
            f"chat_template_kwargs.{name}",
        )


def check_continuation(
    messages: list[Message], continues: bool | None, opens_turn: bool | None
) -> None:
    """Raises `InvalidRequest` for a last message that cannot be the beginning of the answer."""
    if not continues:
        return
    if opens_turn:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt are both true, but only one can be",
            "continue_final_message",
        )
    last = messages[-1]
    if not isinstance(last, AssistantMessage) or not last.content:
        raise InvalidRequest(
            "continue_final_message is true, but the last message is not an assistant message "
            "with content",
            "continue_final_message",
        )
