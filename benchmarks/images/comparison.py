"""Medians over the rounds of a comparison of image models, ratios, and the report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from benchmarks.comparison import commands, facts
from benchmarks.images.process import BuildCost
from benchmarks.images.workload import Measurement
from benchmarks.machine import MIB
from benchmarks.markdown import table, with_spread

BEGIN_MARK = "<!-- images:begin -->"
END_MARK = "<!-- images:end -->"
_BASES = ("openvino-f32", "enginery-fp32")  # what the others are compared with
_NONE = "-"


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant with its measurement of each round, and what making its model took."""

    name: str
    label: str
    command: str
    rounds: list[Measurement]
    build: BuildCost | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, as it is written to JSON.

    `others_share` is the share of all cores that other programs used during each measurement.
    """

    checkpoint: str
    date: str
    machine: dict[str, str]
    workload: dict[str, object]
    command: str
    variants: list[Variant]
    left_out: list[str]
    failures: list[str]
    others_share: list[float]


class Column(msgspec.Struct, frozen=True):
    """One figure of every round, the smaller the better; no values where it was not measured."""

    title: str
    values: list[float]
    digits: int = 2

    @property
    def cell(self) -> str:
        return with_spread(self.values, self.digits) if self.values else _NONE


def columns(variant: Variant, sizes: Sequence[int]) -> list[Column]:
    """The figures of a variant, in the table's order; the same titles for every variant."""
    rounds = variant.rounds

    def decodes(size: int) -> list[float]:
        return [measured.decode_s[size] for measured in rounds if size in measured.decode_s]

    return [
        *(Column(f"step, {size} px", [m.step_s[size] for m in rounds]) for size in sizes),
        *(Column(f"VAE decode, {size} px", decodes(size)) for size in sizes),
        Column("text", [measured.text_s for measured in rounds]),
        Column("load", [measured.load_s for measured in rounds], 1),
        Column("peak memory", [measured.peak_rss_bytes / MIB for measured in rounds], 0),
    ]


def times_better(base: Column, other: Column) -> str:
    """How many times less `other` takes than `base`, by the medians."""
    if not base.values or not other.values:
        return _NONE
    return f"{median(base.values) / median(other.values):.2f}"


def markdown(comparison: Comparison) -> str:
    """The report: medians, ratios, cost of the exports, what it ran on, how to repeat it."""
    measured = [variant for variant in comparison.variants if variant.rounds]
    if not measured:
        return "Nothing was measured.\n"
    sizes = sorted(measured[0].rounds[0].step_s)
    head = [column.title for column in columns(measured[0], sizes)]
    rows = [[v.label, *(column.cell for column in columns(v, sizes))] for v in measured]
    parts = [_caption(comparison, measured), table([["", *head], *rows])]
    for name in _BASES:
        base = next((variant for variant in measured if variant.name == name), None)
        if base is not None and len(measured) > 1:
            parts += [f"How many times less than {base.label}:", _ratios(base, measured, sizes)]
    parts += _exports(comparison.variants)
    versions = [variant.rounds[0].version for variant in measured]
    sentences = comparison.left_out + comparison.failures
    parts += [
        facts(comparison.date, comparison.machine, versions, comparison.others_share, sentences),
        commands(comparison.command, [variant.command for variant in measured]),
    ]
    return "\n\n".join(parts) + "\n"


def _ratios(base: Variant, measured: Sequence[Variant], sizes: Sequence[int]) -> str:
    theirs = columns(base, sizes)
    rows = [["", *(column.title for column in theirs)]]
    for variant in measured:
        if variant is not base:
            pairs = zip(theirs, columns(variant, sizes), strict=True)
            rows.append([variant.label, *(times_better(a, b) for a, b in pairs)])
    return table(rows)


def _caption(comparison: Comparison, measured: Sequence[Variant]) -> str:
    work = comparison.workload
    counts = sorted({len(variant.rounds) for variant in measured})
    rounds = " or ".join(map(str, counts))
    return (
        f"{comparison.checkpoint}, {work['num_threads']} threads, median of {rounds} interleaved "
        "rounds (lowest to highest), seconds. Step: one guided denoising step of one picture, a "
        f"batch of two; the median of {work['steps']} in a process. With step caching, the whole "
        f"denoiser runs at every {work['cache_interval']}. step: the mean of a run of "
        f"{work['cached_steps']} steps, with its texts. Text: a prompt and a negative prompt. "
        "Load: until all components are ready. Peak memory: MiB resident, of a process that "
        "draws at all these sizes."
    )


def _exports(variants: Sequence[Variant]) -> list[str]:
    rows = [
        [v.label, f"{v.build.seconds:.0f}", f"{v.build.peak_rss_bytes / MIB:,.0f}"]
        for v in variants
        if v.build is not None and v.name in ("enginery-fp32", "enginery-int8")
    ]
    if not rows:
        return []
    head = ["", "seconds", "peak memory, MiB"]
    return ["The export of the engines, without verification:", table([head, *rows])]
