"""`/tokenize` and `/detokenize`, in vLLM's shape."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from server.schema.chat import MAX_MESSAGES, check_continuation, check_template_variables
from server.schema.described import TokenId
from server.schema.messages import Message
from server.schema.tools import MAX_TOOLS, Tool

MAX_TOKENS = 1_048_576


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """A prompt, or a conversation as chat requests have it. `model` may be left out where there is
    one. `add_special_tokens` is for prompts, and true by default; templates write their own.
    """

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    return_token_strs: bool | None = None

    def check(self) -> None:
        """Check what fields say together.

        Raises:
            InvalidRequest: Two fields contradict each other, or there is nothing to encode.
        """
        if (self.prompt is None) == (self.messages is None):
            both = "both set" if self.prompt is not None else "both missing"
            raise InvalidRequest(f"prompt and messages are {both}, but one is needed", "prompt")
        check_template_variables(self.chat_template_kwargs)
        if self.messages is not None:
            check_continuation(
                self.messages, self.continue_final_message, self.add_generation_prompt
            )


class Tokens(msgspec.Struct, kw_only=True):
    """`max_model_len` are the tokens of a prompt and its answer together."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """Tokens of one text."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Meta(max_length=MAX_TOKENS)]


class DetokenizedText(msgspec.Struct, kw_only=True):
    """Their text, special tokens included."""

    prompt: str
