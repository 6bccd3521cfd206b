"""Limits that an answer has to keep to count as good: `ttft:500 itl:50`, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from benchmarks.results import RequestResult


def _mean_gap(result: RequestResult) -> float | None:
    return fmean(result.gaps_s) if result.gaps_s else None


# Seconds, or None where an answer has no such time.
_TIMES: dict[str, Callable[[RequestResult], float | None]] = {
    "ttft": lambda result: result.ttft_s,
    "itl": _mean_gap,
    "gap": lambda result: result.longest_gap_s,
    "tpot": lambda result: result.tpot_s,
    "e2e": lambda result: result.latency_s,
}


class Limits:
    """What an answer may take: name of a time -> milliseconds.

    `ttft` is the time to the first token, `itl` the mean gap of an answer, `gap` its longest,
    `tpot` its time per output token and `e2e` the whole.

    Raises:
        ValueError: A limit is not of the form NAME:MILLISECONDS, or names an unknown time.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.milliseconds: dict[str, float] = {}
        for text in texts:
            name, _, value = text.partition(":")
            if name not in _TIMES:
                known = ", ".join(_TIMES)
                raise ValueError(
                    f"goodput has {text!r}, but a limit is one of {known}, as ttft:500"
                )
            try:
                limit = float(value)
            except ValueError:
                limit = 0.0
            if not limit > 0:
                raise ValueError(f"goodput has {text!r}, but a limit is milliseconds above 0")
            self.milliseconds[name] = limit

    def are_met(self, result: RequestResult) -> bool:
        """Whether an answer kept all limits; one that failed did not.

        Gaps that do not exist keep theirs; a first token that was not seen does not.
        """
        if result.error is not None:
            return False
        for name, limit in self.milliseconds.items():
            seconds = _TIMES[name](result)
            if seconds is None:
                if name == "ttft":
                    return False
            elif 1e3 * seconds > limit:
                return False
        return True
