"""`python -m benchmarks server-path`: streamed tokens a second of the server without a model."""

from __future__ import annotations

import asyncio
import os
import pstats
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
from cyclopts import Group, Parameter
from rich.console import Console

from benchmarks.engine import choose_engine
from benchmarks.errors import BenchmarkFailed
from benchmarks.loop_lag import LoopLag, lag_between, read_loop_lag
from benchmarks.machine import busy_share, describe_machine
from benchmarks.markdown import with_spread
from benchmarks.options import STDOUT, JsonTarget, check_at_least_one, check_json_target
from benchmarks.peers.http import free_port
from benchmarks.peers.process import child_environment
from benchmarks.report import FigureTable, write_json
from benchmarks.server_path.clients import run_clients
from benchmarks.server_process import cpu_seconds
from engines import __version__
from engines.store import find_engines

_SERVER = Group("Server", sort_key=1)
_LOAD = Group("Load", sort_key=2)
_START_TIMEOUT_S = 30.0
_PROFILE_LINES = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPathConfig:
    """Measure the whole server with an engine that has no model: text, stop strings, events."""

    engine_dir: Annotated[
        Path, Parameter(help="a chat engine, whose tokenizer is used", group=_SERVER)
    ]
    model: Annotated[
        str | None, Parameter(help="the engine's id, when the folder holds several", group=_SERVER)
    ] = None
    streams: Annotated[int, Parameter(help="at once", group=_LOAD)] = 64
    tokens: Annotated[int, Parameter(help="of each stream in a round", group=_LOAD)] = 1000
    rounds: Annotated[int, Parameter(help="after one that warms up", group=_LOAD)] = 5
    profile: Annotated[
        bool,
        Parameter(help="also print where the event loop's time goes", negative="", group=_LOAD),
    ] = False
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_json_target(self.json)
        check_at_least_one(self, ("streams", "tokens", "rounds"))


class ServerPathReport(msgspec.Struct, frozen=True, kw_only=True):
    """Of each round: tokens a second, tokens a second of the server's processor time, and the
    share of tokens that were an event of their own.
    """

    machine: dict[str, str]
    streams: int
    tokens: int
    busy_before: float | None
    tokens_per_s: list[float]
    tokens_per_cpu_s: list[float]
    events_per_token: list[float]
    event_loop_lag: LoopLag | None


def run_server_path(config: ServerPathConfig) -> int:
    """Start the server on one core, stream, report."""
    folder = choose_engine(find_engines(config.engine_dir), config.model)
    with tempfile.TemporaryDirectory() as scratch:
        profile = Path(scratch) / "profile" if config.profile else None
        report = _measure(config, folder.path, None)
        if profile is not None:
            _measure(config, folder.path, profile)
        if config.json is not None:
            write_json(report, config.json)
        if config.json != STDOUT:
            Console().print(table(report).to_rich())
            if report.event_loop_lag is not None:
                Console().print(f"{str(report.event_loop_lag).capitalize()}.", highlight=False)
            if profile is not None:
                stats = pstats.Stats(str(profile))
                stats.strip_dirs().sort_stats("tottime").print_stats(_PROFILE_LINES)
    return 0


def table(report: ServerPathReport) -> FigureTable:
    """Medians over the rounds, with the lowest and the highest."""
    rows = [
        ["tokens/s", with_spread(report.tokens_per_s, 0)],
        ["tokens/s of processor time", with_spread(report.tokens_per_cpu_s, 0)],
        ["events a token", with_spread(report.events_per_token, 3)],
    ]
    title = f"The server without a model, {report.streams} streams on one core"
    return FigureTable(title, ["", f"median of {len(report.tokens_per_s)} rounds"], rows)


def _measure(config: ServerPathConfig, engine: Path, profile: Path | None) -> ServerPathReport:
    busy = busy_share(0.5)
    rates: list[float] = []
    cpu_rates: list[float] = []
    shares: list[float] = []
    own_cores, core = _cores()
    with _running(engine, config.streams, core, profile) as (port, pid):
        if own_cores:
            os.sched_setaffinity(0, own_cores)
        url = f"http://127.0.0.1:{port}/v1"
        before_all: LoopLag | None = None
        try:
            for number in range(config.rounds + 1):
                before = cpu_seconds(pid)
                counted = asyncio.run(run_clients(port, config.streams, config.tokens))
                used_s = cpu_seconds(pid) - before
                num_tokens = config.streams * config.tokens
                if number == 0:  # warm-up
                    before_all = read_loop_lag(url)
                    continue
                rates.append(num_tokens / (counted.last_s - counted.first_s))
                cpu_rates.append(num_tokens / max(used_s, 1e-9))
                shares.append(counted.events / num_tokens)
            lag = lag_between(before_all, read_loop_lag(url))
        finally:
            if own_cores:
                os.sched_setaffinity(0, own_cores | {core})
    return ServerPathReport(
        machine=describe_machine("falcon", "uvicorn", "msgspec") | {"enginery": __version__},
        streams=config.streams,
        tokens=config.tokens,
        busy_before=busy,
        tokens_per_s=rates,
        tokens_per_cpu_s=cpu_rates,
        events_per_token=shares,
        event_loop_lag=lag,
    )


def _cores() -> tuple[set[int], int]:
    """Those of the clients and that of the server; no cores where they cannot be told apart."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(usable) < 2:
        return set(), usable[0] if usable else 0
    return set(usable[1:]), usable[0]


@contextmanager
def _running(
    engine: Path, streams: int, core: int, profile: Path | None
) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [
        *(sys.executable, "-m", "benchmarks.server_path.process", str(engine), str(port)),
        *(str(streams), str(core), *([] if profile is None else [str(profile)])),
    ]
    process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkFailed(f"`{' '.join(command)}` did not begin to serve")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.HTTPError:
        return False
