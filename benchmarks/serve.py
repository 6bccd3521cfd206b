"""`python -m benchmarks serve`: load a running server and report latencies and rates."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from rich.console import Console

from benchmarks.load import PointReport, Prompts, open_server_load
from benchmarks.load_options import LoadOptions
from benchmarks.loop_lag import lag_between, read_loop_lag
from benchmarks.machine import describe_machine
from benchmarks.options import STDOUT
from benchmarks.progress import LoadProgress
from benchmarks.report import load_tables, write_json
from benchmarks.target import api_url, check_url
from engines import __version__

_TARGET = Group("Server", sort_key=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig(LoadOptions):
    """Load any OpenAI-compatible server: time to first token, inter-token latency, tokens/s."""

    base_url: Annotated[
        str,
        Parameter(help="as OpenAI clients take it; `/v1` is added to a bare host", group=_TARGET),
    ]
    model: Annotated[
        str | None, Parameter(help="default: the only model that the server lists", group=_TARGET)
    ] = None

    def __post_init__(self) -> None:
        LoadOptions.__post_init__(self)  # super() does not work in a class with slots
        check_url(self.base_url)


def run_serve(config: ServeConfig) -> int:
    """Run the loads; the exit status is 1 when no request succeeded."""
    seed = new_seed(config)
    before = read_loop_lag(config.base_url)
    model, points = asyncio.run(_measure(config, seed))
    lag = lag_between(before, read_loop_lag(config.base_url))
    if config.json is not None:
        write_json(
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "client": describe_machine("httpx") | {"enginery": __version__},
                "settings": settings(config)
                | {"base_url": api_url(config.base_url), "model": model, "seed": seed},
                "points": points,
                "event_loop_lag": lag,
            },
            config.json,
        )
    if config.json != STDOUT:
        console = Console()
        console.print(f"{model} at {api_url(config.base_url)}", markup=False, highlight=False)
        for table in load_tables([(point.name, point) for point in points]):
            console.print(table.to_rich())
        if lag is not None:
            console.print(f"Of the server, {lag}", highlight=False)
    draw_reports(config, f"{model}: a server under load", {model: [points]})
    return 0 if any(p.summary.num_failed < p.summary.num_requests for p in points) else 1


def draw_reports(
    config: LoadOptions, title: str, rounds: dict[str, list[list[PointReport]]]
) -> None:
    """The plots and the page that were asked for; see `benchmarks.plots.loads`."""
    if config.html is None and config.plots is None:
        return
    from benchmarks.plots.loads import load_figures
    from benchmarks.plots.page import write_page  # only now: it loads matplotlib

    figures = load_figures(rounds)
    if config.plots is not None:
        config.plots.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            (config.plots / f"{name}.png").write_bytes(figure.png)
    if config.html is not None:
        last = [
            (f"{name}, {point.name}" if len(rounds) > 1 else point.name, point)
            for name, its_rounds in rounds.items()
            for point in its_rounds[-1]
        ]
        facts = describe_machine("httpx") | {"enginery": __version__}
        write_page(config.html, title, list(figures.values()), load_tables(last), facts)


def new_seed(config: LoadOptions) -> int:
    """The seed that was given, or a new one."""
    return secrets.randbelow(2**31) if config.seed is None else config.seed


def settings(config: LoadOptions) -> dict[str, Any]:
    """What was asked for, without the key."""
    asked = {name: value for name, value in asdict(config).items() if name != "api_key"}
    return asked | {name: str(value) for name, value in asked.items() if isinstance(value, Path)}


async def _measure(config: ServeConfig, seed: int) -> tuple[str, list[PointReport]]:
    prompts = Prompts.of(config, seed)
    async with open_server_load(config.base_url, config.model, config) as server:
        scale = await server.token_scale(prompts)
        with LoadProgress(config.quiet) as progress:
            points = [
                await server.measure(point, prompts, scale, seed, progress)
                for point in config.points
            ]
    return server.model, points
