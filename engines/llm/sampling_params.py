"""How one sequence is sampled and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_LOGPROBS = 20
_PENALTY_LIMIT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The sampling of one sequence: bias and penalties, temperature, top-k, top-p, min-p.

    Raises:
        ValueError: A field is out of its range; the message names field, value and range.
    """

    max_tokens: int = 16
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 keeps every token
    top_p: float = 1.0
    min_p: float = 0.0  # relative to the most likely token
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and answer; 1 is off
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None  # None: drawn from the system
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    num_logprobs: int | None = None  # None: no logprobs; 0: of the chosen token only
    prompt_logprobs: bool = False  # for `echo`; the prompt is then computed without prefix reuse

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens, 0, None)
        _check("temperature", self.temperature, 0, 100)
        _check("top_k", self.top_k, 0, None)
        _check("top_p", self.top_p, 0, 1, open_low=True)
        _check("min_p", self.min_p, 0, 1)
        _check("presence_penalty", self.presence_penalty, -_PENALTY_LIMIT, _PENALTY_LIMIT)
        _check("frequency_penalty", self.frequency_penalty, -_PENALTY_LIMIT, _PENALTY_LIMIT)
        _check("repetition_penalty", self.repetition_penalty, 0.01, 100)
        if self.num_logprobs is not None:
            _check("num_logprobs", self.num_logprobs, 0, MAX_LOGPROBS)
        for token_id, bias in self.logit_bias.items():
            _check(f"logit_bias[{token_id}]", bias, -100, 100)


def _check(
    name: str, value: float, low: float, high: float | None, *, open_low: bool = False
) -> None:
    too_low = value <= low if open_low else value < low
    if too_low or value != value or (high is not None and value > high):
        bound = f"above {low:g}" if open_low else f"at least {low:g}"
        upper = "" if high is None else f" and at most {high:g}"
        raise ValueError(f"{name} is {value}, but it must be {bound}{upper}")
