"""How late an event loop woke, read from the metrics of a server."""

from __future__ import annotations

import httpx
import pytest

from benchmarks import loop_lag
from benchmarks.loop_lag import LoopLag, lag_between, read_loop_lag
from server.metrics import Metrics


def metrics_of(lags):
    metrics = Metrics()
    for lag in lags:
        metrics.event_loop_lag.observe(lag)
    return httpx.Response(200, content=metrics.render("")[0])


@pytest.fixture
def lags(monkeypatch):
    """What the server at any address has seen; a list to add to."""
    seen = []
    asked = []
    monkeypatch.setattr(loop_lag.httpx, "get", lambda url: asked.append(url) or metrics_of(seen))
    yield seen
    assert set(asked) == {"http://127.0.0.1:8000/metrics"}


def test_the_lag_of_a_load_leaves_out_what_was_before(lags):
    lags += [3.0] * 5
    before = read_loop_lag("http://127.0.0.1:8000/v1")
    lags += [0.0004] * 60 + [0.0021] * 39 + [0.04]
    lag = lag_between(before, read_loop_lag("http://127.0.0.1:8000/v1"))
    assert (lag.num_wakes, lag.at_most_ms(0.5), lag.at_most_ms(0.99)) == (100, 0.5, 3.0)
    assert str(lag) == (
        "the event loop woke 100 times: half at most 0.5 ms late, 99% 3 ms, all 50 ms"
    )


def test_a_server_that_has_not_woken_or_does_not_say_has_no_lag(lags, monkeypatch):
    before = read_loop_lag("http://127.0.0.1:8000/v1")
    assert before == LoopLag(bounds_ms=before.bounds_ms, counts=[0] * len(before.counts))
    assert lag_between(before, read_loop_lag("http://127.0.0.1:8000/v1")) is None
    monkeypatch.setattr(loop_lag.httpx, "get", lambda url: httpx.Response(404))
    assert read_loop_lag("http://127.0.0.1:8000/v1") is None
    assert lag_between(None, before) is None
