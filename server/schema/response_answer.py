"""`/v1/responses`: the answer."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from server.schema.response_items import OutputItem
from server.schema.usage import CompletionUsage

ResponseStatus = Literal["completed", "incomplete", "in_progress", "failed"]


class InputTokensDetails(msgspec.Struct, kw_only=True):
    """`cached_tokens` of the prompt were computed for an earlier request."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, kw_only=True):
    """`reasoning_tokens` of the answer were thoughts, their marks included."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Tokens in and out."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: CompletionUsage) -> ResponseUsage:
        """The same counts as completions tell them."""
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(
                cached_tokens=usage.prompt_tokens_details.cached_tokens
            ),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(
                reasoning_tokens=usage.completion_tokens_details.reasoning_tokens
            ),
            total_tokens=usage.total_tokens,
        )


class ResponseError(msgspec.Struct, kw_only=True):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str

    @classmethod
    def of(cls, status: int, message: str) -> ResponseError:
        """What an HTTP status is called here."""
        if status == 429:
            return cls(code="rate_limit_exceeded", message=message)
        return cls(code="invalid_prompt" if status < 500 else "server_error", message=message)


class IncompleteDetails(msgspec.Struct, kw_only=True):
    """Why a response is not whole."""

    reason: Literal["max_output_tokens"]


class TextSettings(msgspec.Struct, kw_only=True):
    """The form that was asked for, as it was sent."""

    format: dict[str, Any]
    verbosity: str = "medium"


class ReasoningSettings(msgspec.Struct, kw_only=True):
    """The reasoning that was asked for."""

    effort: str | None = None
    summary: str | None = None


class ResponseObject(msgspec.Struct, kw_only=True):
    """An answer with what was asked; while it is streamed, as far as it has come."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: ResponseStatus
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: ReasoningSettings
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: TextSettings
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    metadata: dict[str, str]


class ResponseDeleted(msgspec.Struct, kw_only=True):
    """A response that is not stored any more."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True
