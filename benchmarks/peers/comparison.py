"""Medians over the rounds of a comparison, ratios to the peers, and the report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from benchmarks.machine import MIB
from benchmarks.markdown import insert_between, table, with_spread
from benchmarks.peers.workload import Measurement, Precision

BEGIN_MARK = "<!-- peers:begin -->"
END_MARK = "<!-- peers:end -->"


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One peer at one precision with its measurement of each round."""

    peer: str
    precision: Precision
    label: str
    command: str
    rounds: list[Measurement]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, as it is written to JSON. The first peer of a precision is compared with others.

    `busy_share` is the share of all cores that other processes used before each measurement.
    """

    checkpoint: str
    date: str
    machine: dict[str, str]
    workload: dict[str, object]
    command: str
    variants: list[Variant]
    left_out: list[str]
    failures: list[str]
    busy_share: list[float]


class Column(msgspec.Struct, frozen=True):
    """One figure of every round. Ratios are "how many times better than the peer"."""

    title: str
    values: list[float]
    smaller_is_better: bool = False

    @property
    def median(self) -> float:
        return median(self.values)


def columns(variant: Variant) -> list[Column]:
    """The figures of a variant, in the table's order; the same titles for every variant."""
    rounds = variant.rounds
    streams = sorted(rounds[0].decode)
    return [
        Column("prefill", [measured.prefill for measured in rounds]),
        *(
            Column(f"decode, {n} {_streams(n)}", [measured.decode[n] for measured in rounds])
            for n in streams
        ),
        Column("peak memory", [measured.peak_rss_bytes / MIB for measured in rounds], True),
    ]


def ratio(ours: Column, theirs: Column) -> float:
    """How many times better ours is, by the medians."""
    if ours.smaller_is_better:
        return theirs.median / ours.median
    return ours.median / theirs.median


def markdown(comparison: Comparison) -> str:
    """The report: medians, ratios, what it ran on, how to repeat it."""
    measured = [variant for variant in comparison.variants if variant.rounds]
    if not measured:
        return "Nothing was measured.\n"
    parts = [
        _caption(comparison),
        table([_header("", measured[0]), *map(_median_row, measured)]),
    ]
    ratios = _ratio_rows(measured)
    if ratios:
        parts += [
            "How many times better Enginery is (speed: its own by the peer's; memory: the "
            "peer's by its own):",
            table([_header("Enginery to", measured[0]), *ratios]),
        ]
    parts += [_facts(comparison, measured), _commands(comparison, measured)]
    return "\n\n".join(parts) + "\n"


def insert_between_marks(document: str, report: str) -> str:
    """Replace what stands between the marks of a document.

    Raises:
        ValueError: The document does not hold both marks, in order.
    """
    return insert_between(document, report, BEGIN_MARK, END_MARK)


def _caption(comparison: Comparison) -> str:
    work = comparison.workload
    rounds = max(len(variant.rounds) for variant in comparison.variants)
    return (
        f"{comparison.checkpoint}, {work['num_threads']} threads, median of {rounds} interleaved "
        f"rounds (lowest to highest). Prefill: a prompt of {work['prefill_tokens']} tokens, "
        f"tokens/s. Decode: {work['decode_tokens']} tokens for each stream after "
        f"{work['decode_context']} of context, tokens/s of all streams together. Peak memory: "
        "MiB resident."
    )


def _header(first: str, variant: Variant) -> list[str]:
    return [first, *(column.title for column in columns(variant))]


def _median_row(variant: Variant) -> list[str]:
    return [variant.label, *map(_median_cell, columns(variant))]


def _median_cell(column: Column) -> str:
    return with_spread(column.values, 0 if column.median >= 100 else 1)


def _ratio_rows(measured: Sequence[Variant]) -> list[list[str]]:
    rows = []
    for precision in dict.fromkeys(variant.precision for variant in measured):
        ours, *peers = [variant for variant in measured if variant.precision == precision]
        if ours.peer != "Enginery":
            continue
        for peer in peers:
            pairs = zip(columns(ours), columns(peer), strict=True)
            cells = [f"{ratio(mine, other):.2f}" for mine, other in pairs]
            rows.append([f"{peer.label} ({precision})", *cells])
    return rows


def _facts(comparison: Comparison, measured: Sequence[Variant]) -> str:
    versions = dict.fromkeys(variant.rounds[0].version for variant in measured)
    lines = [f"- Date: {comparison.date}"]
    lines += [f"- {name.capitalize()}: {value}" for name, value in comparison.machine.items()]
    lines += [f"- Versions: {'; '.join(versions)}"]
    if comparison.busy_share:
        shares = comparison.busy_share
        lines.append(
            f"- Cores in use by others before the measurements: {median(shares):.0%} in the "
            f"median, {max(shares):.0%} at most"
        )
    lines += [f"- {sentence}" for sentence in comparison.left_out + comparison.failures]
    return "\n".join(lines)


def _commands(comparison: Comparison, measured: Sequence[Variant]) -> str:
    commands = [comparison.command, *(variant.command for variant in measured)]
    return "The command, and what it ran in each round:\n\n```\n" + "\n".join(commands) + "\n```"


def _streams(count: int) -> str:
    return "stream" if count == 1 else "streams"
