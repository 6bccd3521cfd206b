"""What one request measured, and what many of them add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """One finished request; times in seconds, `started_s` since the run began."""

    started_s: float
    latency_s: float  # until the last byte
    ttft_s: float | None = None  # until the first text; None when not streamed or without text
    gaps_s: tuple[float, ...] = ()  # between the chunks that carried text
    num_prompt_tokens: int | None = None  # None: the server reported no usage
    num_output_tokens: int = 0
    tokens_from_usage: bool = False  # else one token for each chunk that carried text
    text: str = ""  # of the first choice, without reasoning
    error: str | None = None  # the kind, for example "HTTP 429 rate_limit_exceeded"

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for answers of one token."""
        if self.ttft_s is None or self.num_output_tokens < 2:
            return None
        return (self.latency_s - self.ttft_s) / (self.num_output_tokens - 1)

    @property
    def longest_gap_s(self) -> float | None:
        return max(self.gaps_s, default=None)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of `count` values, in the unit of the values; percentiles interpolate linearly."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A whole run: rates per second over `duration_s`, latencies in milliseconds."""

    duration_s: float
    num_requests: int
    num_failed: int
    errors: dict[str, int]  # kind -> how many, most frequent first
    token_counts: str  # where the numbers of tokens come from
    prompt_tokens: int | None
    output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float | None  # None: the server did not report its prompts' tokens
    ttft_ms: Distribution | None
    itl_ms: Distribution | None
    longest_gap_ms: Distribution | None  # of each request
    tpot_ms: Distribution | None
    latency_ms: Distribution | None
    good_per_s: float | None = None  # requests that kept all limits; None: no limits
    good_share: float | None = None  # of all requests


def statistic(field: str, name: str) -> Callable[[Summary], float | None]:
    """Reads one statistic of a summary, for example `p50` of `ttft_ms`."""

    def read(summary: Summary) -> float | None:
        values: Distribution | None = getattr(summary, field)
        return None if values is None else float(getattr(values, name))

    return read


def distribution(values: Iterable[float]) -> Distribution | None:
    """Mean, percentiles and maximum; None without values."""
    array = np.fromiter(values, dtype=np.float64)  # [count]
    if array.size == 0:
        return None
    p50, p90, p95, p99 = np.percentile(array, [50, 90, 95, 99]).tolist()
    return Distribution(array.size, float(array.mean()), p50, p90, p95, p99, float(array.max()))


def summarize(
    results: Sequence[RequestResult], is_good: Callable[[RequestResult], bool] | None = None
) -> Summary:
    """Add up a run. Failed requests count as failed and in nothing else.

    Args:
        results: Of all requests.
        is_good: Whether an answer kept the limits, if there are any.

    Raises:
        ValueError: `results` is empty.
    """
    if not results:
        raise ValueError("there are no results to summarize")
    done = [result for result in results if result.error is None]
    errors = Counter(result.error for result in results if result.error is not None)
    start = min(result.started_s for result in results)
    duration_s = max(max(result.started_s + result.latency_s for result in results) - start, 1e-9)
    output_tokens = sum(result.num_output_tokens for result in done)
    prompt_tokens = _prompt_tokens(done)
    num_good = None if is_good is None else sum(map(is_good, results))
    return Summary(
        duration_s=duration_s,
        num_requests=len(results),
        num_failed=len(results) - len(done),
        errors=dict(errors.most_common()),
        token_counts=_token_counts(done),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        requests_per_s=len(done) / duration_s,
        output_tokens_per_s=output_tokens / duration_s,
        total_tokens_per_s=(
            None if prompt_tokens is None else (prompt_tokens + output_tokens) / duration_s
        ),
        ttft_ms=distribution(1e3 * r.ttft_s for r in done if r.ttft_s is not None),
        itl_ms=distribution(1e3 * gap for r in done for gap in r.gaps_s),
        longest_gap_ms=distribution(1e3 * max(r.gaps_s) for r in done if r.gaps_s),
        tpot_ms=distribution(1e3 * r.tpot_s for r in done if r.tpot_s is not None),
        latency_ms=distribution(1e3 * r.latency_s for r in done),
        good_per_s=None if num_good is None else num_good / duration_s,
        good_share=None if num_good is None else num_good / len(results),
    )


def _prompt_tokens(done: Sequence[RequestResult]) -> int | None:
    counts = [result.num_prompt_tokens for result in done]
    if not counts or None in counts:
        return None
    return sum(count for count in counts if count is not None)


def _token_counts(done: Sequence[RequestResult]) -> str:
    from_usage = sum(result.tokens_from_usage for result in done)
    if from_usage == len(done):
        return "the server's usage"
    if from_usage == 0:
        return "chunks (the server reported no usage)"
    return f"the server's usage for {from_usage} of {len(done)} requests, else by chunks"
