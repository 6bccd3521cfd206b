"""`python -m benchmarks compare`: the same load on several servers, in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Annotated

import msgspec
from cyclopts import Group, Parameter
from rich.console import Console

from benchmarks.load import PointReport, Prompts, open_server_load
from benchmarks.load_options import LoadOptions
from benchmarks.machine import describe_machine
from benchmarks.markdown import with_spread
from benchmarks.options import STDOUT, check_at_least_one
from benchmarks.progress import LoadProgress
from benchmarks.prompts import TokenScale
from benchmarks.report import FigureTable, write_json
from benchmarks.results import Summary, statistic
from benchmarks.serve import draw_reports, new_seed, settings
from benchmarks.server_process import ServerMeter
from benchmarks.target import api_url, check_url
from engines import __version__

_PEERS = Group("Servers", sort_key=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig(LoadOptions):
    """Put the same load on several servers in turns: medians, ratios and their spread."""

    peer: Annotated[
        tuple[str, ...],
        Parameter(
            help="NAME=URL of a server; the first is what the others are compared with",
            negative="",
            group=_PEERS,
        ),
    ]
    peer_model: Annotated[
        tuple[str, ...],
        Parameter(
            help="NAME=MODEL; default: the only model that the server lists",
            negative="",
            group=_PEERS,
        ),
    ] = ()
    rounds: Annotated[int, Parameter(help="turns of all servers", group=_PEERS)] = 3

    def __post_init__(self) -> None:
        LoadOptions.__post_init__(self)  # super() does not work in a class with slots
        check_at_least_one(self, ("rounds",))
        peers = self.peers
        if len(peers) < 2 or len(peers) != len(self.peer):
            raise ValueError("peer must be given at least twice, each time with another name")
        for url in peers.values():
            check_url(url)
        for name in self.models:
            if name not in peers:
                raise ValueError(f"peer_model names {name!r}, but no peer has that name")

    @property
    def peers(self) -> dict[str, str]:
        return dict(_pair(text, "peer", "URL") for text in self.peer)

    @property
    def models(self) -> dict[str, str]:
        return dict(_pair(text, "peer_model", "MODEL") for text in self.peer_model)


class PeerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One server: its loads of each round, and what else used the machine in each round.

    `others_share` is of all cores, where the server runs on this machine; None elsewhere.
    """

    name: str
    base_url: str
    model: str
    rounds: list[list[PointReport]]
    others_share: list[float | None]
    peak_rss_bytes: int | None


def run_compare(config: CompareConfig) -> int:
    """Run all rounds; the exit status is 1 when a server answered nothing."""
    seed = new_seed(config)
    peers = asyncio.run(_measure(config, seed))
    if config.json is not None:
        report = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "client": describe_machine("httpx") | {"enginery": __version__},
            "settings": settings(config) | {"seed": seed},
            "peers": peers,
        }
        write_json(report, config.json)
    if config.json != STDOUT:
        console = Console()
        for table in compare_tables(peers):
            console.print(table.to_rich())
        for line in noise(peers):
            console.print(line, highlight=False)
    draw_reports(config, "Servers side by side", {peer.name: peer.rounds for peer in peers})
    return 1 if any(_all_failed(peer) for peer in peers) else 0


FIGURES: tuple[tuple[str, Callable[[Summary], float | None], bool], ...] = (
    ("output tokens/s", lambda s: s.output_tokens_per_s, False),
    ("first token, p50 ms", statistic("ttft_ms", "p50"), True),
    ("first token, p95 ms", statistic("ttft_ms", "p95"), True),
    ("gap, p50 ms", statistic("itl_ms", "p50"), True),
    ("gap, p99 ms", statistic("itl_ms", "p99"), True),
    ("longest gap, ms", statistic("itl_ms", "max"), True),
    ("end to end, p50 ms", statistic("latency_ms", "p50"), True),
    ("goodput, requests/s", lambda s: s.good_per_s, False),
)


def compare_tables(peers: list[PeerReport]) -> list[FigureTable]:
    """For each load the medians of all rounds, and ratios to the first server."""
    tables = []
    first, *others = [peer.name for peer in peers]
    for index, point in enumerate(peers[0].rounds[0]):
        medians, ratios = [], []
        for title, read, is_less in FIGURES:
            values = {peer.name: _values(peer, index, read) for peer in peers}
            if not any(values.values()):
                continue
            medians.append([title, *(_cell(values[peer.name]) for peer in peers)])
            of_peers = (_ratio(values[first], values[name], is_less=is_less) for name in others)
            ratios.append([title, *of_peers])
        title = f"{point.name}, median of {len(peers[0].rounds)} rounds (lowest to highest)"
        tables.append(FigureTable(title, ["", first, *others], medians))
        title = f"{point.name}, how many times better than {first}, round by round"
        tables.append(FigureTable(title, ["", *others], ratios))
    return tables


def _values(peer: PeerReport, index: int, read: Callable[[Summary], float | None]) -> list[float]:
    return [v for its in peer.rounds if (v := read(its[index].summary)) is not None]


def noise(peers: list[PeerReport]) -> list[str]:
    """What else the machine was doing, and how many answers failed."""
    lines = []
    for peer in peers:
        points = [point for its in peer.rounds for point in its]
        failed = sum(point.summary.num_failed for point in points)
        words = [f"{peer.name}: {failed} requests failed"]
        busy = [point.busy_before for point in points if point.busy_before is not None]
        if busy:
            words.append(f"cores busy before a load {median(busy):.0%}, at most {max(busy):.0%}")
        others = [share for share in peer.others_share if share is not None]
        if others:
            words.append(f"others' share meanwhile {median(others):.0%}, at most {max(others):.0%}")
        if peer.peak_rss_bytes:
            words.append(f"peak memory {peer.peak_rss_bytes / 2**20:,.0f} MiB")
        lines.append("; ".join(words))
    return lines


async def _measure(config: CompareConfig, seed: int) -> list[PeerReport]:
    rounds: dict[str, list[list[PointReport]]] = {name: [] for name in config.peers}
    shares: dict[str, list[float | None]] = {name: [] for name in config.peers}
    meters = {name: ServerMeter.of_url(api_url(url)) for name, url in config.peers.items()}
    models: dict[str, str] = {}
    scale: TokenScale | None = None
    with LoadProgress(config.quiet) as progress:
        for number in range(config.rounds):
            names = list(config.peers)
            names = names[number % len(names) :] + names[: number % len(names)]
            for name in names:
                # A seed a round: all servers get one load, and none what it has seen before.
                prompts = Prompts.of(config, seed + number)
                url, model = config.peers[name], config.models.get(name)
                async with open_server_load(url, model, config) as server:
                    models[name] = server.model
                    own = await server.token_scale(prompts)
                    scale = scale or own
                    prompts = Prompts.of(config, seed + number)
                    progress.prefix = f"round {number + 1} {name}: "
                    meters[name].start()
                    rounds[name].append(
                        [
                            await server.measure(point, prompts, scale, seed + number, progress)
                            for point in config.points
                        ]
                    )
                    shares[name].append(meters[name].others_share())
    return [
        PeerReport(
            name=name,
            base_url=api_url(url),
            model=models[name],
            rounds=rounds[name],
            others_share=shares[name],
            peak_rss_bytes=meters[name].peak_rss_bytes(),
        )
        for name, url in config.peers.items()
    ]


def _pair(text: str, option: str, value: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise ValueError(f"{option} is {text!r}, but it must be NAME={value}")
    return name, rest


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return with_spread(values, 0 if median(values) >= 100 else 1 if median(values) >= 10 else 2)


def _ratio(base: list[float], own: list[float], *, is_less: bool) -> str:
    """Of the rounds that both have, each server's by the other's of the same round."""
    pairs = [(b, o) for b, o in zip(base, own, strict=False) if b and o]
    if not pairs:
        return "-"
    return with_spread([b / o if is_less else o / b for b, o in pairs], 2)


def _all_failed(peer: PeerReport) -> bool:
    points = [point.summary for its in peer.rounds for point in its]
    return all(summary.num_failed == summary.num_requests for summary in points)
