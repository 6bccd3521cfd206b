"""The report of a comparison with peers: medians over the rounds, goals, how to repeat it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from benchmarks.checkpoints.catalogue import ShapeName
from benchmarks.comparison import commands, facts
from benchmarks.machine import MIB
from benchmarks.markdown import table, with_spread
from benchmarks.peers.workload import (
    ClientsMeasurement,
    EngineMeasurement,
    Precision,
    Stage,
    Workload,
)

DEFAULT_SHAPE: ShapeName = "qwen2.5-0.5b"
OURS = "Enginery"
_NONE = "-"


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """One peer at one precision with its measurements of each round, by stage."""

    peer: str
    precision: Precision
    label: str
    commands: dict[Stage, str]
    engine: list[EngineMeasurement] = []
    http: list[ClientsMeasurement] = []
    clients: list[ClientsMeasurement] = []

    @property
    def version(self) -> str:
        versions = [m.version for m in self.engine] + [m.version for m in self.clients]
        return versions[0] if versions else ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, as it is written to JSON.

    `others_share` is the share of all cores that other programs used during each measurement.
    """

    checkpoint: str
    date: str
    machine: dict[str, str]
    workload: Workload
    command: str
    contestants: list[Contestant]
    left_out: list[str]
    failures: list[str]
    others_share: list[float]


class Figure(msgspec.Struct, frozen=True):
    """A column of a table: its title, a contestant's value of each round, which way is better."""

    title: str
    stage: Stage
    read: Callable[[Contestant], list[float]]
    is_less: bool = False


def marks(checkpoint: str) -> tuple[str, str]:
    """Where the report on a checkpoint begins and ends in a document."""
    section = "peers" if checkpoint == DEFAULT_SHAPE else f"peers-{checkpoint}"
    return f"<!-- {section}:begin -->", f"<!-- {section}:end -->"


def engine_figures(workload: Workload) -> list[Figure]:
    """Speed of the engine alone, start-up and memory."""

    def decode(streams: int) -> Callable[[Contestant], list[float]]:
        return lambda c: [m.decode[streams] for m in c.engine if streams in m.decode]

    return [
        Figure("prefill", "engine", lambda c: [m.prefill for m in c.engine]),
        *(
            Figure(f"decode, {n} {'stream' if n == 1 else 'streams'}", "engine", decode(n))
            for n in workload.streams
        ),
        Figure(
            "start-up, s",
            "engine",
            lambda c: [m.startup_s for m in c.engine if m.startup_s is not None],
            is_less=True,
        ),
        Figure(
            "peak memory, MiB",
            "engine",
            lambda c: [m.peak_rss_bytes / MIB for m in c.engine],
            is_less=True,
        ),
    ]


def client_figures(stage: Stage) -> list[Figure]:
    """What clients saw, over HTTP or in the process."""

    def rounds(contestant: Contestant) -> list[ClientsMeasurement]:
        return contestant.http if stage == "http" else contestant.clients

    def of(
        title: str, read: Callable[[ClientsMeasurement], float], *, is_less: bool = True
    ) -> Figure:
        return Figure(title, stage, lambda c: [read(m) for m in rounds(c)], is_less)

    return [
        of("output tokens/s", lambda m: m.output_tokens_per_s, is_less=False),
        of("first token, p50 ms", lambda m: m.ttft_p50_ms),
        of("gap, p50 ms", lambda m: m.gap_p50_ms),
        of("longest gap, ms", lambda m: m.longest_gap_ms),
        Figure(
            "start-up, s",
            stage,
            lambda c: [m.startup_s for m in rounds(c) if m.startup_s is not None],
            is_less=True,
        ),
        of("peak memory, MiB", lambda m: m.peak_rss_bytes / MIB),
    ]


class Goal(msgspec.Struct, frozen=True):
    """How many times better the default engine is to be than the best of some peers."""

    title: str
    figure: Figure
    times: float
    precision: Precision = "int8"  # of ours; the default
    rival: str | None = None  # a label; None: whoever is best


def goals(workload: Workload) -> list[Goal]:
    """What this project wants to reach on two cores."""
    prefill, *decode, startup, memory = engine_figures(workload)
    http, first, _, gap, *_ = client_figures("http")
    clients = client_figures("clients")[0]
    wanted = {1: 1.4, 8: 1.3}
    return [
        Goal(f"prefill of {workload.prefill_tokens}, tokens/s", prefill, 1.3),
        *(
            Goal(f"{figure.title}, tokens/s", figure, wanted[n])
            for n, figure in zip(workload.streams, decode, strict=True)
            if n in wanted
        ),
        *(
            Goal(f"{figure.title}, tokens/s, --optimize latency", figure, wanted[1], "latency")
            for n, figure in zip(workload.streams, decode, strict=True)
            if n == 1
        ),
        Goal("HTTP, output tokens/s", http, 3, rival="llama.cpp Q4_0"),
        Goal("HTTP, first token, p50 ms", first, 3, rival="llama.cpp Q4_0"),
        Goal("HTTP, longest gap, ms", gap, 10, rival="llama.cpp Q4_0"),
        Goal("clients in the process, output tokens/s", clients, 1.3, rival="OpenVINO GenAI int8"),
        Goal("start-up, s", startup, 1, rival="onnxruntime-genai int4"),
        Goal(
            "peak memory, MiB, --precision int4", memory, 1, "int4", rival="onnxruntime-genai int4"
        ),
    ]


def markdown(comparison: Comparison, pictures: Sequence[str] = ()) -> str:
    """The whole report, with lines that show pictures below the tables."""
    measured = [c for c in comparison.contestants if c.engine or c.http or c.clients]
    if not measured:
        return "Nothing was measured.\n"
    work = comparison.workload
    parts = [_caption(comparison)]
    for sentence, figures in (
        (_engine_caption(work), engine_figures(work)),
        (
            _clients_caption(work, "over HTTP, each with the server of its own"),
            client_figures("http"),
        ),
        (_clients_caption(work, "in the process, without HTTP"), client_figures("clients")),
    ):
        rows = [row for contestant in measured if (row := _row(contestant, figures)) is not None]
        if rows:
            parts += [sentence, table([["", *(figure.title for figure in figures)], *rows])]
    wanted = goal_rows(goals(work), measured)
    if wanted:
        head = ["default engine (int8) against", "goal", OURS, "peer", "times better"]
        parts += ["Goals, and how far they are reached:", table([head, *wanted])]
    parts += pictures
    sentences = comparison.left_out + comparison.failures
    versions = [contestant.version for contestant in measured]
    ran = [command for c in measured for command in c.commands.values()]
    parts += [
        facts(comparison.date, comparison.machine, versions, comparison.others_share, sentences),
        commands(comparison.command, ran),
    ]
    return "\n\n".join(parts) + "\n"


def goal_rows(wanted: Sequence[Goal], measured: Sequence[Contestant]) -> list[list[str]]:
    """A row for each goal whose both sides were measured."""
    rows = []
    for goal in wanted:
        read, is_less = goal.figure.read, goal.figure.is_less
        ours = next(
            (read(c) for c in measured if c.peer == OURS and c.precision == goal.precision), []
        )
        rivals = [
            (c.label, read(c))
            for c in measured
            if c.peer != OURS and goal.rival in (None, c.label) and read(c)
        ]
        if not ours or not rivals:
            continue
        best = min if is_less else max
        label, theirs = best(rivals, key=lambda rival: median(rival[1]))
        times = median(theirs) / median(ours) if is_less else median(ours) / median(theirs)
        reached = "reached" if times >= goal.times else "missed"
        rows.append(
            [
                goal.title,
                f"{goal.times:g}x",
                cell(ours),
                f"{label}: {cell(theirs)}",
                f"{times:.2f}, {reached}",
            ]
        )
    return rows


def _row(contestant: Contestant, figures: Sequence[Figure]) -> list[str] | None:
    values = [figure.read(contestant) for figure in figures]
    return [contestant.label, *map(cell, values)] if any(values) else None


def cell(values: Sequence[float]) -> str:
    """The median with its spread, in as many digits as mean something."""
    if not values:
        return _NONE
    middle = median(values)
    return with_spread(values, 0 if middle >= 100 else 1 if middle >= 10 else 2)


def _caption(comparison: Comparison) -> str:
    rounds = max(max(len(c.engine), len(c.http), len(c.clients)) for c in comparison.contestants)
    return (
        f"{comparison.checkpoint}, {comparison.workload.num_threads} threads, medians of up to "
        f"{rounds} interleaved rounds (lowest to highest)."
    )


def _engine_caption(work: Workload) -> str:
    return (
        f"The engine alone. Prefill: a prompt of {work.prefill_tokens} tokens, tokens/s. Decode: "
        f"{work.decode_tokens} tokens for each stream after {work.decode_context} of context, "
        "tokens/s of all streams together. Start-up: from the start of the process until the "
        "model is ready. Peak memory: resident, at most."
    )


def _clients_caption(work: Workload, where: str) -> str:
    return (
        f"{work.clients} clients {where}: prompts of {work.client_prompt} tokens, answers of "
        f"{work.client_tokens}, {work.client_requests} requests, each client sending its next when "
        "its answer is whole."
    )
