"""`python -m benchmarks serve`: load a running server and report latencies and rates."""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import Group, Parameter
from rich.console import Console

from benchmarks.arrivals import arrival_times, send_all
from benchmarks.client import Client, Endpoint, RequestOptions
from benchmarks.errors import BenchmarkFailed
from benchmarks.prompts import Prompt, TextSource, TokenScale, read_dataset
from benchmarks.report import (
    check_at_least_one,
    check_json_target,
    progress,
    serve_report,
    serve_table,
    write_json,
)
from benchmarks.results import RequestResult, summarize
from benchmarks.target import api_url, check_url, only_model
from benchmarks.text import SENTENCES

_TARGET = Group("Server", sort_key=1)
_LOAD = Group("Load", sort_key=2)
_PROMPTS = Group("Prompts and answers", sort_key=3)
_REPORT = Group("Report", sort_key=4)
_DEFAULT_CONCURRENCY = 8
_PROBE_WORDS = (40, 160)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Load any OpenAI-compatible server: time to first token, inter-token latency, tokens/s."""

    base_url: Annotated[
        str,
        Parameter(help="as OpenAI clients take it; `/v1` is added to a bare host", group=_TARGET),
    ]
    model: Annotated[
        str | None, Parameter(help="default: the only model that the server lists", group=_TARGET)
    ] = None
    endpoint: Annotated[Endpoint, Parameter(help="which route is loaded", group=_TARGET)] = "chat"
    api_key: Annotated[str | None, Parameter(help="sent as Bearer token", group=_TARGET)] = None
    timeout: Annotated[float, Parameter(help="seconds without a byte", group=_TARGET)] = 600.0
    num_requests: Annotated[
        int | None, Parameter(help="default: 64, or the lines of --dataset", group=_LOAD)
    ] = None
    concurrency: Annotated[
        int | None,
        Parameter(help="requests in flight; default: 8, without limit with a rate", group=_LOAD),
    ] = None
    request_rate: Annotated[
        float | None,
        Parameter(help="requests/s, Poisson arrivals; default: as fast as possible", group=_LOAD),
    ] = None
    warmup: Annotated[int, Parameter(help="requests sent first and not measured", group=_LOAD)] = 1
    prompt_tokens: Annotated[
        int, Parameter(help="about this many, by the server's own count", group=_PROMPTS)
    ] = 256
    prompt_file: Annotated[
        Path | None, Parameter(help="text to draw prompts from; default: built in", group=_PROMPTS)
    ] = None
    dataset: Annotated[
        Path | None,
        Parameter(help="JSONL with `prompt` or `messages`, perhaps `max_tokens`", group=_PROMPTS),
    ] = None
    max_tokens: Annotated[int, Parameter(help="tokens of an answer, at most", group=_PROMPTS)] = 128
    stream: Annotated[bool, Parameter(help="stream the answers", group=_PROMPTS)] = True
    ignore_eos: Annotated[
        bool, Parameter(help="ask for answers of exactly max_tokens", group=_PROMPTS)
    ] = False
    temperature: Annotated[
        float | None, Parameter(help="default: the server's", group=_PROMPTS)
    ] = None
    seed: Annotated[
        int | None,
        Parameter(help="of prompts, arrivals and sampling; default: a new one", group=_PROMPTS),
    ] = None
    json: Annotated[
        str | None,
        Parameter(
            help="write everything to this file; `-` is stdout",
            group=_REPORT,
            allow_leading_hyphen=True,
        ),
    ] = None
    quiet: Annotated[bool, Parameter(help="no progress bar", group=_REPORT)] = False

    def __post_init__(self) -> None:
        check_json_target(self.json)
        check_url(self.base_url)
        check_at_least_one(self, ("num_requests", "concurrency", "prompt_tokens", "max_tokens"))
        for name in ("request_rate", "timeout"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, but it must be above 0 and finite")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}, but it must be at least 0")
        if self.dataset is not None and self.prompt_file is not None:
            raise ValueError("dataset and prompt_file were both given, but one must be left out")

    @property
    def url(self) -> str:
        """The base of the API's paths."""
        return api_url(self.base_url)

    @property
    def max_concurrency(self) -> int | None:
        if self.concurrency is None and self.request_rate is None:
            return _DEFAULT_CONCURRENCY
        return self.concurrency


def run_serve(config: ServeConfig) -> int:
    """Run the load; the exit status is 1 when no request succeeded."""
    seed = secrets.randbelow(2**31) if config.seed is None else config.seed
    dataset = None
    if config.dataset is not None:
        dataset = read_dataset(config.dataset, needs_text=config.endpoint == "completions")
    source = (
        TextSource(SENTENCES, seed)
        if config.prompt_file is None
        else TextSource.from_file(config.prompt_file, seed)
    )
    model, results = asyncio.run(_load(config, seed, dataset, source))
    summary = summarize(results)
    report = serve_report(_settings(config, model, seed), summary, results)
    if config.json is not None:
        write_json(report, config.json)
    if config.json != "-":
        Console().print(serve_table(model, summary))
    return 1 if summary.num_failed == summary.num_requests else 0


def _settings(config: ServeConfig, model: str, seed: int) -> dict[str, Any]:
    """What was asked for, without the key."""
    asked = {name: value for name, value in asdict(config).items() if name != "api_key"}
    paths = {name: str(value) for name, value in asked.items() if isinstance(value, Path)}
    return asked | paths | {"base_url": config.url, "model": model, "seed": seed}


async def _load(
    config: ServeConfig, seed: int, dataset: list[Prompt] | None, source: TextSource
) -> tuple[str, list[RequestResult]]:
    headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=config.max_concurrency)
    async with httpx.AsyncClient(
        base_url=config.url, headers=headers, timeout=config.timeout, limits=limits
    ) as http:
        model = config.model or await only_model(http)
        options = RequestOptions(
            model=model,
            endpoint=config.endpoint,
            max_tokens=config.max_tokens,
            stream=config.stream,
            ignore_eos=config.ignore_eos,
            temperature=config.temperature,
            seed=config.seed,
        )
        prompts = await _prompts(config, Client(http, options), dataset, source)
        with progress(len(prompts), config.quiet) as advance:
            results = await send_all(
                Client(http, options).send,
                prompts,
                arrival_times(len(prompts), config.request_rate, seed),
                config.max_concurrency,
                lambda _: advance(),
            )
    return model, results


async def _prompts(
    config: ServeConfig, client: Client, dataset: list[Prompt] | None, source: TextSource
) -> list[Prompt]:
    """The prompts to measure, after the requests that are not measured."""
    if dataset is not None:
        count = config.num_requests or len(dataset)
        prompts = [dataset[index % len(dataset)] for index in range(count)]
        warmup = [dataset[index % len(dataset)] for index in range(config.warmup)]
    else:
        num_words = (await _measure_scale(client, source)).num_words(config.prompt_tokens)
        warmup = [source.prompt(num_words) for _ in range(config.warmup)]
        prompts = [source.prompt(num_words) for _ in range(config.num_requests or 64)]
    for result in await asyncio.gather(*map(client.send, warmup)):
        _stop_on_error(result)
    return prompts


async def _measure_scale(client: Client, source: TextSource) -> TokenScale:
    """Learn from two short requests how many tokens the server counts for a word."""
    counts = []
    for num_words in _PROBE_WORDS:
        result = await client.send(source.prompt(num_words), max_tokens=1)
        _stop_on_error(result)
        if result.num_prompt_tokens is None:
            return TokenScale()
        counts.append((num_words, result.num_prompt_tokens))
    return TokenScale.from_counts(counts[0], counts[1])


def _stop_on_error(result: RequestResult) -> None:
    if result.error is not None:
        raise BenchmarkFailed(f"a request before the measurement failed: {result.error}")
