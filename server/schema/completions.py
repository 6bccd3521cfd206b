"""`/v1/completions`: the request and the answer, whole or as chunks of a stream."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engines.errors import InvalidRequest
from server.schema.described import Prompts, TokenIds
from server.schema.sampling import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    unsupported,
)
from server.schema.structured import StructuredFields
from server.schema.usage import CompletionLogprobs, CompletionUsage

DEFAULT_MAX_TOKENS = 16  # OpenAI's


class CompletionRequest(StructuredFields, kw_only=True):
    """What a client sends. Beside OpenAI's fields: `top_k`, `min_p`, `repetition_penalty`,
    `ignore_eos`, `stop_token_ids`, `skip_special_tokens`, and those of structured output.
    """

    model: str
    prompt: Prompts
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None

    @property
    def answer_limit(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def prompts(self) -> list[str | TokenIds]:
        """One or more prompts, each as text or as token ids.

        Raises:
            InvalidRequest: The list is neither one prompt nor a list of prompts.
        """
        if isinstance(self.prompt, str):
            return [self.prompt]
        token_ids = [item for item in self.prompt if isinstance(item, int)]
        if not token_ids:
            return [item for item in self.prompt if not isinstance(item, int)]
        if len(token_ids) < len(self.prompt):
            raise InvalidRequest(
                "prompt mixes token ids with other prompts, but it must be a text, a list of "
                "texts, a list of token ids or a list of such lists",
                "prompt",
            )
        return [token_ids]

    def check(self, vocab_size: int) -> None:
        """Check what fields say together.

        Raises:
            InvalidRequest: A prompt is missing, too many are asked for, or ids are out of range.
            ApiError: A value is OpenAI's, but not supported here.
        """
        self.check_stream_options()
        if self.best_of is not None and self.best_of != self.num_choices:
            raise unsupported(
                f"best_of is {self.best_of} and n is {self.num_choices}, but this server returns "
                "every answer that it writes: they must be equal",
                "best_of",
            )
        prompts = self.prompts
        if not prompts:
            raise InvalidRequest("prompt is an empty list, but it must hold a prompt", "prompt")
        num_answers = len(prompts) * self.num_choices
        if num_answers > MAX_CHOICES:
            raise InvalidRequest(
                f"{len(prompts)} prompts with n {self.num_choices} make {num_answers} answers, but "
                f"a request may have at most {MAX_CHOICES}",
                "prompt",
            )
        for index, prompt in enumerate(prompts):
            self._check_prompt(
                prompt, "prompt" if len(prompts) == 1 else f"prompt[{index}]", vocab_size
            )

    def _check_prompt(self, prompt: str | TokenIds, param: str, vocab_size: int) -> None:
        if not prompt:
            raise InvalidRequest(f"{param} is empty, but a model needs at least one token", param)
        if isinstance(prompt, str):
            return
        wrong = [token_id for token_id in prompt if not 0 <= token_id < vocab_size]
        if wrong:
            raise InvalidRequest(
                f"{param} has the token id {wrong[0]}, but ids run from 0 to {vocab_size - 1}",
                param,
            )


class CompletionChoice(msgspec.Struct, kw_only=True):
    """The text of one answer, or what a chunk adds to it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class Completion(msgspec.Struct, kw_only=True):
    """A whole answer, or one event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
