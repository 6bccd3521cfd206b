"""Token counts and log-probabilities, as answers report them."""

from __future__ import annotations

import msgspec


class PromptTokensDetails(msgspec.Struct, kw_only=True):
    """`cached_tokens` of the prompt were computed for an earlier request."""

    cached_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct, kw_only=True):
    """`reasoning_tokens` of the answer were thoughts, their marks included."""

    reasoning_tokens: int = 0


class CompletionUsage(msgspec.Struct, kw_only=True):
    """Tokens in and out; a token that ends an answer (end of sequence, stop) counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(msgspec.Struct, kw_only=True):
    """One of the most likely tokens of a position; `bytes` are its UTF-8, whole or not."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(msgspec.Struct, kw_only=True):
    """One generated token; natural logarithms, -9999 for what cannot be."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct, kw_only=True):
    """The logprobs of a chat choice, or of one chunk of it."""

    content: list[TokenLogprob] | None
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """The logprobs of a text completion: four lists of one length.

    `text_offset` counts characters from the beginning of the choice's text. The first token of an
    echoed prompt has no logprob.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def finite(logprob: float) -> float:
    """JSON has no infinity."""
    return max(logprob, -9999.0)
