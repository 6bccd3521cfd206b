"""What chat and text completions share: how many answers, how sampled, where they end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from engines.llm.sampling_params import SamplingParams
from server.errors import ApiError
from server.schema.described import TokenId, described
from server.text.generation_config import GenerationConfig
from server.text.stop_strings import StopStrings

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_STOP_TOKEN_IDS = 128
MAX_LOGIT_BIAS = 1024
MAX_TOP_LOGPROBS = 20

# The smallest nucleus: the most likely token alone.
_LEAST_TOP_P = 1e-9

Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]
LogitBias = Annotated[
    dict[str, Annotated[float, Meta(ge=-100, le=100)]],
    described(propertyNames={"pattern": "^[0-9]{1,19}$"}, maxProperties=MAX_LOGIT_BIAS),
]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class StreamOptions(msgspec.Struct, kw_only=True):
    """`include_usage` adds a last chunk with the usage and no choices."""

    include_usage: bool | None = None


class SamplingFields(msgspec.Struct, kw_only=True):
    """What the request says of sampling; null and left out mean the same."""

    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    logit_bias: LogitBias | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # What OpenAI keeps for itself: taken, and without effect.
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_stream_options(self) -> None:
        """Raises `InvalidRequest` for options of a stream where none was asked for."""
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "stream_options is set, but it is only allowed when stream is true",
                "stream_options",
            )

    def stop_strings(self, others: Sequence[str] = ()) -> StopStrings | None:
        """The stop strings, and others that the model needs, compiled, or None."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop
        stops = [*(given or ()), *others]
        return StopStrings(stops) if stops else None

    def sampling_params(
        self,
        defaults: GenerationConfig,
        *,
        max_tokens: int,
        vocab_size: int,
        num_logprobs: int | None,
        prompt_logprobs: bool = False,
    ) -> SamplingParams:
        """The engine's parameters; what is left out comes from the checkpoint.

        Raises:
            InvalidRequest: A token id is not in the vocabulary.
        """
        top_p = _first(self.top_p, defaults.default("top_p"), 1.0)
        for token_id in self.stop_token_ids or ():
            _check_token_id("stop_token_ids", token_id, vocab_size)
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_first(self.temperature, defaults.default("temperature"), 1.0),
            top_k=max(0, int(_first(self.top_k, defaults.default("top_k"), 0))),
            top_p=max(top_p, _LEAST_TOP_P),
            min_p=_first(self.min_p, defaults.default("min_p"), 0.0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=_first(
                self.repetition_penalty, defaults.default("repetition_penalty"), 1.0
            ),
            logit_bias=_token_bias(self.logit_bias or {}, vocab_size),
            seed=self.seed,
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            num_logprobs=num_logprobs,
            prompt_logprobs=prompt_logprobs,
        )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _token_bias(logit_bias: dict[str, float], vocab_size: int) -> dict[int, float]:
    if len(logit_bias) > MAX_LOGIT_BIAS:
        raise InvalidRequest(
            f"logit_bias has {len(logit_bias)} entries, but it may have at most {MAX_LOGIT_BIAS}",
            "logit_bias",
        )
    biases = {}
    for key, bias in logit_bias.items():
        if not (key.isascii() and key.isdigit() and len(key) < 20):
            raise InvalidRequest(
                f"logit_bias has the key {key[:32]!r}, but its keys must be token ids", "logit_bias"
            )
        _check_token_id("logit_bias", int(key), vocab_size)
        biases[int(key)] = bias
    return biases


def _check_token_id(param: str, token_id: int, vocab_size: int) -> None:
    if not 0 <= token_id < vocab_size:
        raise InvalidRequest(
            f"{param} has the token id {token_id}, but ids run from 0 to {vocab_size - 1}", param
        )


def unsupported(message: str, param: str) -> ApiError:
    """A 400 for something that OpenAI has and this server has not."""
    return ApiError(400, message, param=param, code="unsupported_value")
