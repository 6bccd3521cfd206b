"""Results for people (tables, a progress bar) and for scripts (JSON)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.load import PointReport
from benchmarks.options import STDOUT
from benchmarks.results import Distribution

LATENCIES = (
    ("time to first token, ms", "ttft_ms"),
    ("inter-token latency, ms", "itl_ms"),
    ("longest gap of a request, ms", "longest_gap_ms"),
    ("time per output token, ms", "tpot_ms"),
    ("end-to-end latency, ms", "latency_ms"),
)
_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
_NONE = "-"


@dataclass(frozen=True, slots=True)
class FigureTable:
    """A table of figures: the first column names the row."""

    title: str
    head: list[str]
    rows: list[list[str]]

    def to_rich(self) -> Table:
        table = Table(
            title=self.title or None, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold"
        )
        table.add_column(self.head[0], no_wrap=True)
        for name in self.head[1:]:
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(*row)
        return table


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


def load_tables(points: Sequence[tuple[str, PointReport]]) -> list[FigureTable]:
    """Rates, then latencies, a row for each load under the name it is given."""
    rates = FigureTable(
        "",
        ["", "answered", "requests/s", "output tokens/s", "all tokens/s", "goodput, requests/s"],
        [_rates(name, point) for name, point in points],
    )
    counts = FigureTable(
        "",
        ["", "prompt tokens", "output tokens", "counted by"],
        [_counts(name, point) for name, point in points],
    )
    latencies = [
        FigureTable(
            title,
            ["", *_STATISTICS],
            [[name, *cells(getattr(point.summary, field))] for name, point in points],
        )
        for title, field in LATENCIES
    ]
    errors = [
        [f"{name}: {kind}", str(count)]
        for name, point in points
        for kind, count in point.summary.errors.items()
    ]
    failed = [FigureTable("", ["failed", "requests"], errors)] if errors else []
    return [rates, *failed, *latencies, counts]


def write_json(report: Any, target: str) -> None:
    """Write `report` to a file, or to standard output for `-`."""
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
    if target == STDOUT:
        sys.stdout.write(encoded)
    else:
        Path(target).write_text(encoded, encoding="utf-8")


def _rates(name: str, point: PointReport) -> list[str]:
    summary = point.summary
    done = summary.num_requests - summary.num_failed
    total = summary.total_tokens_per_s
    good = _NONE
    if summary.good_per_s is not None and summary.good_share is not None:
        good = f"{summary.good_per_s:.2f} ({summary.good_share:.0%})"
    return [
        name,
        f"{done} of {summary.num_requests}",
        f"{summary.requests_per_s:.2f}",
        f"{summary.output_tokens_per_s:,.1f}",
        _NONE if total is None else f"{total:,.1f}",
        good,
    ]


def _counts(name: str, point: PointReport) -> list[str]:
    summary = point.summary
    prompt = _NONE if summary.prompt_tokens is None else f"{summary.prompt_tokens:,}"
    return [name, prompt, f"{summary.output_tokens:,}", summary.token_counts]


def cells(values: Distribution | None) -> list[str]:
    """The statistics of a distribution, in the table's order."""
    if values is None:
        return [_NONE] * len(_STATISTICS)
    return [f"{getattr(values, statistic):,.1f}" for statistic in _STATISTICS]
