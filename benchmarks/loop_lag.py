"""How late a server's event loop woke while it was under load, from its own metrics."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx
import msgspec

_BUCKET = re.compile(r'^\w*event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


class LoopLag(msgspec.Struct, frozen=True, kw_only=True):
    """Wake-ups by how late they were at most: bounds in ms, and how many lie below each."""

    bounds_ms: list[float]
    counts: list[int]  # of this bound and all below it

    @property
    def num_wakes(self) -> int:
        return self.counts[-1]

    def at_most_ms(self, share: float) -> float:
        """What `share` of the wake-ups were late at most, up to the bound of a bucket."""
        enough = share * self.num_wakes
        return next(
            bound for bound, count in zip(self.bounds_ms, self.counts, strict=True)
            if count >= enough
        )  # fmt: skip

    def since(self, before: LoopLag) -> LoopLag:
        """Those that came after `before` was read."""
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return LoopLag(bounds_ms=self.bounds_ms, counts=counts)

    def __str__(self) -> str:
        p50, p99, most = (self.at_most_ms(share) for share in (0.5, 0.99, 1.0))
        return (
            f"the event loop woke {self.num_wakes:,} times: half at most {p50:g} ms late, 99% "
            f"{p99:g} ms, all {most:g} ms"
        )


def read_loop_lag(base_url: str) -> LoopLag | None:
    """What a server has seen so far; None if it does not say."""
    parts = urlsplit(base_url)
    try:
        answer = httpx.get(f"{parts.scheme}://{parts.netloc}/metrics")
    except httpx.HTTPError:
        return None
    buckets = _BUCKET.findall(answer.text) if answer.status_code == 200 else []
    if not buckets:
        return None
    return LoopLag(
        bounds_ms=[1e3 * float(bound) for bound, _ in buckets],
        counts=[int(float(count)) for _, count in buckets],
    )


def lag_between(before: LoopLag | None, after: LoopLag | None) -> LoopLag | None:
    """Of a load; None where the server does not say, or has not woken meanwhile."""
    if before is None or after is None:
        return None
    lag = after.since(before)
    return lag if lag.num_wakes else None
