"""What a step hands to the caller."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from engines.llm.sequence import FinishReason


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural log-probabilities of one position, before any penalty, bias or temperature.

    `top` holds the most likely tokens, best first; it need not contain the chosen one.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # (token id, logprob)


class StepOutput(msgspec.Struct, frozen=True):
    """What one step did for one sequence.

    `token_id` is None when the sequence ended without a new token (aborted, or `max_tokens=0`).
    An end-of-sequence or stop token is reported (it counts as generated), with
    `finish_reason` STOP; the text layer leaves it out. `prompt_logprobs` come with the first
    output of a sequence that asked for them: one entry a prompt token, None for the first.
    """

    seq_id: int
    token_id: int | None
    finish_reason: FinishReason | None
    logprobs: TokenLogprobs | None = None
    num_cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the engine started, and gauges of this moment."""

    num_waiting: int
    num_running: int
    num_steps: int
    prompt_tokens: int
    generation_tokens: int
    prefix_cache_queries: int  # prompt tokens that could have been reused
    prefix_cache_hits: int  # prompt tokens that were
    kv_cache_bytes: int
    kv_cache_limit_bytes: int
    draft_tokens: int = 0  # that were verified
    accepted_draft_tokens: int = 0
