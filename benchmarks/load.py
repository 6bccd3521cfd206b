"""Puts a load on one server and measures it: calibration, warm-up, then each load in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import msgspec
import numpy as np

from benchmarks.arrivals import arrival_times, send_all
from benchmarks.client import Client
from benchmarks.errors import BenchmarkFailed
from benchmarks.goodput import Limits
from benchmarks.load_options import LoadOptions, LoadPoint
from benchmarks.machine import busy_share
from benchmarks.progress import LoadProgress
from benchmarks.prompts import Prompt, TextSource, TokenScale, read_dataset
from benchmarks.results import RequestResult, Summary, summarize
from benchmarks.target import api_url, only_model
from benchmarks.text import SENTENCES
from benchmarks.trace import TracedRequest, read_trace
from benchmarks.workloads import Session, run_session

_PROBE_WORDS = (40, 160)
_CURVE = np.linspace(0, 100, 401)  # percentiles that a distribution is drawn from
_LARGE = ("gaps_s", "text")  # of a request, and left out of reports
BUSY_SAMPLE_S = 0.5  # how long the machine is watched before each load


class PointReport(msgspec.Struct, frozen=True, kw_only=True):
    """One load as it is written to JSON.

    `gaps_ms` are the 401 percentiles 0, 0.25, ... 100 of the gaps between tokens. `busy_before` is
    the share of this machine's cores that was in use before the load; None if unknown.
    """

    mode: str
    concurrency: int | None
    rate: float | None
    name: str
    busy_before: float | None
    summary: Summary
    gaps_ms: list[float]
    requests: list[dict[str, Any]]

    @property
    def load(self) -> float:
        """Clients, or requests/s."""
        return self.concurrency or self.rate or 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Where the prompts of a load come from; read once, before anything is sent."""

    source: TextSource
    dataset: list[Prompt] | None = None
    trace: list[TracedRequest] | None = None

    @classmethod
    def of(cls, options: LoadOptions, seed: int) -> Prompts:
        """Read the files that the options name.

        Raises:
            BenchmarkFailed: A file is not of its form.
        """
        is_text = options.endpoint == "completions"
        return cls(
            source=TextSource(SENTENCES, seed)
            if options.prompt_file is None
            else TextSource.from_file(options.prompt_file, seed),
            dataset=None
            if options.dataset is None
            else read_dataset(options.dataset, needs_text=is_text),
            trace=None if options.trace is None else read_trace(options.trace),
        )


class ServerLoad:
    """One server under load. `open_server_load` makes it."""

    def __init__(self, http: httpx.AsyncClient, model: str, options: LoadOptions) -> None:
        self.model = model
        self._options = options
        self._client = Client(http, options.request_options(model))
        self._http = http

    async def token_scale(self, prompts: Prompts) -> TokenScale:
        """Learn from two short requests how many tokens the server counts for a word."""
        if prompts.dataset is not None:
            return TokenScale()
        counts = []
        for num_words in _PROBE_WORDS:
            result = await self._client.send(prompts.source.prompt(num_words), max_tokens=1)
            _stop_on_error(result)
            if result.num_prompt_tokens is None:
                return TokenScale()
            counts.append((num_words, result.num_prompt_tokens))
        return TokenScale.from_counts(counts[0], counts[1])

    async def measure(
        self,
        point: LoadPoint,
        prompts: Prompts,
        scale: TokenScale,
        seed: int,
        progress: LoadProgress,
    ) -> PointReport:
        """Warm up, run one load to its end, add up.

        Raises:
            BenchmarkFailed: A request of the warm-up failed.
        """
        options = self._options
        warmup, sessions, due_s = plan(options, point, prompts, scale, seed)
        client = Client(self._http, options.request_options(self.model))
        for results in await asyncio.gather(*(run_session(client.send, s) for s in warmup)):
            _stop_on_error(results[-1])
        busy = await asyncio.to_thread(busy_share, BUSY_SAMPLE_S)
        client = Client(self._http, options.request_options(self.model))
        with progress.load(point.name, sum(len(s.turns) for s in sessions), client) as on_results:
            answered = await send_all(
                lambda session: run_session(client.send, session),
                sessions,
                due_s,
                point.concurrency,
                on_results,
            )
        results = [result for session in answered for result in session]
        return report_point(point, results, Limits(options.goodput), busy)


def plan(
    options: LoadOptions, point: LoadPoint, prompts: Prompts, scale: TokenScale, seed: int
) -> tuple[list[Session], list[Session], list[float]]:
    """The sessions of the warm-up, those that are measured, and when each of these is due."""
    source, dataset, trace = prompts.source, prompts.dataset, prompts.trace
    if trace is not None:
        warmup = [Session((source.prompt(_PROBE_WORDS[0]),)) for _ in range(options.warmup)]
        traced = trace[: options.num_requests]
        sessions = [Session((request.to_prompt(source, scale),)) for request in traced]
        return warmup, sessions, [request.due_s / options.trace_speed for request in traced]
    if dataset is not None:
        count = options.num_requests or len(dataset)
        every = [Session((dataset[index % len(dataset)],)) for index in range(count)]
        warmup = [Session((dataset[i % len(dataset)],)) for i in range(options.warmup)]
        return warmup, every, arrival_times(count, point.rate, seed)
    workload = options.synthetic()
    warmup = workload.sessions(options.warmup, source, scale)
    sessions = workload.sessions(options.count(point), source, scale)
    return warmup, sessions, arrival_times(len(sessions), point.rate, seed)


def report_point(
    point: LoadPoint, results: list[RequestResult], limits: Limits, busy: float | None
) -> PointReport:
    """Add up one load."""
    gaps = [1e3 * gap for result in results if result.error is None for gap in result.gaps_s]
    return PointReport(
        mode=point.mode,
        concurrency=point.concurrency,
        rate=point.rate,
        name=point.name,
        busy_before=busy,
        summary=summarize(results, limits.are_met if limits.milliseconds else None),
        gaps_ms=np.percentile(gaps, _CURVE).tolist() if gaps else [],
        requests=[_request(result) for result in results],
    )


@asynccontextmanager
async def open_server_load(
    base_url: str, model: str | None, options: LoadOptions
) -> AsyncIterator[ServerLoad]:
    """Connections to a server, which names its only model if none is given."""
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=api_url(base_url), headers=headers, timeout=options.timeout, limits=limits
    ) as http:
        yield ServerLoad(http, model or await only_model(http), options)


def _request(result: RequestResult) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(result).items() if name not in _LARGE}
    return fields | {"longest_gap_s": result.longest_gap_s}


def _stop_on_error(result: RequestResult) -> None:
    if result.error is not None:
        raise BenchmarkFailed(f"a request before the measurement failed: {result.error}")
