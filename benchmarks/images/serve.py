"""`python -m benchmarks serve-images`: load a running server with prompts for pictures."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Annotated

import httpx
from cyclopts import Group, Parameter
from rich import box
from rich.console import Console
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from benchmarks.arrivals import arrival_times, send_all
from benchmarks.errors import BenchmarkFailed
from benchmarks.images.client import ImageClient, ImageRequestOptions, ImageResult
from benchmarks.machine import describe_machine
from benchmarks.options import check_at_least_one, check_json_target
from benchmarks.report import progress, write_json
from benchmarks.results import Distribution, distribution
from benchmarks.target import api_url, check_url, only_model
from engines import __version__

_TARGET = Group("Server", sort_key=1)
_LOAD = Group("Load", sort_key=2)
_PICTURES = Group("Pictures", sort_key=3)
_REPORT = Group("Report", sort_key=4)
_SIZE = re.compile(r"auto|[1-9][0-9]*x[1-9][0-9]*")
_MAX_PARTIAL_IMAGES = 3  # OpenAI's limit
_COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
_SHAPES = ("circle", "square", "triangle", "star")
_STATISTICS = ("mean", "p50", "p95", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeImagesConfig:
    """Load any server with OpenAI's image API: images/s, latency, time to the first preview."""

    base_url: Annotated[
        str,
        Parameter(help="as OpenAI clients take it; `/v1` is added to a bare host", group=_TARGET),
    ]
    model: Annotated[
        str | None, Parameter(help="default: the only model that the server lists", group=_TARGET)
    ] = None
    api_key: Annotated[str | None, Parameter(help="sent as Bearer token", group=_TARGET)] = None
    timeout: Annotated[float, Parameter(help="seconds without a byte", group=_TARGET)] = 600.0
    num_requests: Annotated[int, Parameter(help="measured requests", group=_LOAD)] = 16
    concurrency: Annotated[
        int | None,
        Parameter(help="requests in flight; default: 4, without limit with a rate", group=_LOAD),
    ] = None
    request_rate: Annotated[
        float | None,
        Parameter(help="requests/s, Poisson arrivals; default: as fast as possible", group=_LOAD),
    ] = None
    warmup: Annotated[int, Parameter(help="requests sent first and not measured", group=_LOAD)] = 1
    size: Annotated[
        str, Parameter(help="width x height such as 512x512, or auto", group=_PICTURES)
    ] = "auto"
    n: Annotated[int, Parameter(help="pictures of a request", group=_PICTURES)] = 1
    num_inference_steps: Annotated[
        int | None, Parameter(help="default: the server's", group=_PICTURES)
    ] = None
    stream: Annotated[
        bool, Parameter(help="stream the answers with partial images", group=_PICTURES)
    ] = False
    partial_images: Annotated[
        int, Parameter(help="of a streamed picture, 0 to 3", group=_PICTURES)
    ] = 1
    seed: Annotated[int, Parameter(help="of prompts and arrivals", group=_PICTURES)] = 0
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
        check_at_least_one(self, ("num_requests", "concurrency", "n", "num_inference_steps"))
        for name in ("request_rate", "timeout"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, but it must be above 0 and finite")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}, but it must be at least 0")
        if not 0 <= self.partial_images <= _MAX_PARTIAL_IMAGES:
            raise ValueError(
                f"partial_images is {self.partial_images}, but it must be between 0 and "
                f"{_MAX_PARTIAL_IMAGES}"
            )
        if not _SIZE.fullmatch(self.size):
            raise ValueError(f"size is {self.size!r}, but it must be like 512x512, or auto")

    @property
    def max_concurrency(self) -> int | None:
        if self.concurrency is None and self.request_rate is None:
            return 4
        return self.concurrency

    def request_options(self, model: str) -> ImageRequestOptions:
        return ImageRequestOptions(
            model=model,
            size=self.size,
            n=self.n,
            partial_images=self.partial_images if self.stream else None,
            num_inference_steps=self.num_inference_steps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSummary:
    """A whole run: rates per second over `duration_s`, latencies in seconds."""

    duration_s: float
    num_requests: int
    num_failed: int
    errors: dict[str, int]  # kind -> how many, most frequent first
    num_images: int
    images_per_s: float
    first_partial_s: Distribution | None
    latency_s: Distribution | None


def run_serve_images(config: ServeImagesConfig) -> int:
    """Run the load; the exit status is 1 when no request succeeded."""
    model, results = asyncio.run(_load(config))
    summary = summarize_images(results)
    if config.json is not None:
        asked = {name: value for name, value in asdict(config).items() if name != "api_key"}
        report = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "client": describe_machine("httpx") | {"enginery": __version__},
            "settings": asked | {"base_url": api_url(config.base_url), "model": model},
            "summary": asdict(summary),
            "requests": [asdict(result) for result in results],
        }
        write_json(report, config.json)
    if config.json != "-":
        Console().print(_table(model, summary))
    return 1 if summary.num_failed == summary.num_requests else 0


def prompts(count: int, seed: int) -> list[str]:
    """Short prompts, the same for the same seed; none twice until all were drawn."""
    every = [
        f"a {colour} {shape} on a {background} background"
        for colour, shape, background in product(_COLOURS, _SHAPES, _COLOURS)
        if colour != background
    ]
    random.Random(seed).shuffle(every)
    return [every[index % len(every)] for index in range(count)]


def summarize_images(results: Sequence[ImageResult]) -> ImageSummary:
    """Add up a run. Failed requests count as failed and in nothing else.

    Raises:
        ValueError: `results` is empty.
    """
    if not results:
        raise ValueError("there are no results to summarize")
    done = [result for result in results if result.error is None]
    errors = Counter(result.error for result in results if result.error is not None)
    start = min(result.started_s for result in results)
    duration_s = max(max(result.started_s + result.latency_s for result in results) - start, 1e-9)
    num_images = sum(result.num_images for result in done)
    partials = (r.first_partial_s for r in done if r.first_partial_s is not None)
    return ImageSummary(
        duration_s=duration_s,
        num_requests=len(results),
        num_failed=len(results) - len(done),
        errors=dict(errors.most_common()),
        num_images=num_images,
        images_per_s=num_images / duration_s,
        first_partial_s=distribution(partials),
        latency_s=distribution(result.latency_s for result in done),
    )


async def _load(config: ServeImagesConfig) -> tuple[str, list[ImageResult]]:
    headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=config.max_concurrency)
    async with httpx.AsyncClient(
        base_url=api_url(config.base_url), headers=headers, timeout=config.timeout, limits=limits
    ) as http:
        model = config.model or await only_model(http)
        client = ImageClient(http, config.request_options(model))
        drawn = prompts(config.warmup + config.num_requests, config.seed)
        for result in await asyncio.gather(*map(client.send, drawn[: config.warmup])):
            if result.error is not None:
                raise BenchmarkFailed(f"a request before the measurement failed: {result.error}")
        measured = drawn[config.warmup :]
        with progress(len(measured), config.quiet) as advance:
            results = await send_all(
                client.send,
                measured,
                arrival_times(len(measured), config.request_rate, config.seed),
                config.max_concurrency,
                lambda _: advance(),
            )
    return model, results


def _table(model: str, summary: ImageSummary) -> Stack:
    done = summary.num_requests - summary.num_failed
    rates = Table(box=None, show_header=False)
    rates.add_column()
    rates.add_column(justify="right")
    rates.add_row("images", f"{summary.num_images}")
    rates.add_row("images/s", f"{summary.images_per_s:.3f}")
    for kind, count in summary.errors.items():
        rates.add_row(Text(f"failed: {kind}"), f"{count}")
    latencies = Table(box=box.SIMPLE_HEAD, title_justify="left")
    latencies.add_column("seconds")
    for statistic in _STATISTICS:
        latencies.add_column(statistic, justify="right")
    latencies.add_row("first partial image", *_cells(summary.first_partial_s))
    latencies.add_row("end-to-end latency", *_cells(summary.latency_s))
    answered = f"{done} of {summary.num_requests} requests answered in {summary.duration_s:.1f} s"
    return Stack(Text(f"{model}: {answered}"), rates, latencies)


def _cells(values: Distribution | None) -> list[str]:
    if values is None:
        return ["-"] * len(_STATISTICS)
    return [f"{getattr(values, statistic):.2f}" for statistic in _STATISTICS]
