"""Results for people (tables, a progress bar) and for scripts (JSON)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from benchmarks.machine import describe_machine
from benchmarks.results import Distribution, RequestResult, Summary
from engines import __version__

STDOUT = "-"
_LATENCIES = (
    ("time to first token", "ttft_ms"),
    ("inter-token latency", "itl_ms"),
    ("time per output token", "tpot_ms"),
    ("end-to-end latency", "latency_ms"),
)
_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error, drawn only on a terminal; yields what advances it by one."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("requests"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task("requests", total=total)
        yield lambda: bar.advance(task)


def serve_table(model: str, summary: Summary) -> Group:
    """The summary of a load: rates, latencies in milliseconds, errors by kind."""
    latencies = Table(box=box.SIMPLE_HEAD, title_justify="left")
    latencies.add_column("milliseconds")
    for statistic in _STATISTICS:
        latencies.add_column(statistic, justify="right")
    for title, field in _LATENCIES:
        latencies.add_row(title, *_cells(getattr(summary, field)))
    return Group(Text(f"{model}: {_requests(summary)}"), _rates(summary), latencies)


def serve_report(
    settings: dict[str, Any], summary: Summary, results: Sequence[RequestResult]
) -> dict[str, Any]:
    """Everything as plain data: settings, client machine, summary, one entry for each request."""
    requests = [
        {name: value for name, value in asdict(result).items() if name != "gaps_s"}
        for result in results
    ]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "client": describe_machine("httpx") | {"enginery": __version__},
        "settings": settings,
        "summary": asdict(summary),
        "requests": requests,
    }


def check_json_target(target: str | None) -> None:
    """Raise ValueError for what is rather the next flag than a file name."""
    if target is not None and target != STDOUT and target.startswith("-"):
        raise ValueError(f"json is {target!r}, but it must be a file name or -")


def write_json(report: Any, target: str) -> None:
    """Write `report` to a file, or to standard output for `-`."""
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
    if target == STDOUT:
        sys.stdout.write(encoded)
    else:
        Path(target).write_text(encoded, encoding="utf-8")


def _requests(summary: Summary) -> str:
    done = summary.num_requests - summary.num_failed
    answered = f"{done} of {summary.num_requests} requests answered in {summary.duration_s:.1f} s"
    return f"{answered}; tokens counted by {summary.token_counts}"


def _rates(summary: Summary) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests/s", f"{summary.requests_per_s:.2f}")
    table.add_row("output tokens/s", f"{summary.output_tokens_per_s:.1f}")
    if summary.total_tokens_per_s is not None:
        table.add_row("prompt and output tokens/s", f"{summary.total_tokens_per_s:.1f}")
        table.add_row("prompt tokens", f"{summary.prompt_tokens}")
    table.add_row("output tokens", f"{summary.output_tokens}")
    for kind, count in summary.errors.items():
        table.add_row(Text(f"failed: {kind}"), f"{count}")
    return table


def _cells(values: Distribution | None) -> list[str]:
    if values is None:
        return ["-"] * len(_STATISTICS)
    return [f"{getattr(values, statistic):.1f}" for statistic in _STATISTICS]


def check_at_least_one(config: object, names: Iterable[str]) -> None:
    """Refuse a setting below 1; None is one that was left out."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, but it must be at least 1")
