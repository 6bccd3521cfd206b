"""The figures of a GPU as Markdown, and the goals that they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.gpu.chat import ChatFigures
from benchmarks.markdown import insert_between, table

BEGIN, END = "<!-- gpu figures begin -->", "<!-- gpu figures end -->"
GOAL_LIMIT_SHARE = 0.8  # of the bandwidth's limit, for one stream
GOAL_STREAMS_RATIO = 25  # 64 streams against one


class ParityFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How near an engine is to the CPU's in fp32."""

    model: str
    target: str
    precision: str
    num_steps: int
    top1: float
    mean_kl: float


class GpuReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run of the benchmark found."""

    command: str
    machine: dict[str, str]
    bandwidth: float  # bytes a second, measured
    chat: list[ChatFigures]
    parity: list[ParityFigures]
    more: list[str] = []  # sections of other engines, as Markdown
    skipped: list[str] = []  # what could not run, and why


def render(report: GpuReport) -> str:
    """The whole section."""
    facts = "; ".join(f"{name} {value}" for name, value in report.machine.items())
    parts = [
        f"Measured by `{report.command}`: {facts}. Copies within the GPU move "
        f"{report.bandwidth / 1e9:,.0f} GB/s.",
        _decode_table(report.chat),
        _latency_table(report.chat),
        _parity_table(report.parity),
        *report.more,
        "Goals: " + "; ".join(goals(report.chat)) + "." if report.chat else "",
        *(f"Not run: {sentence}." for sentence in report.skipped),
    ]
    return "\n\n".join(part for part in parts if part)


def write_into(document: Path, report: GpuReport) -> None:
    """Put the section where the document has its marks."""
    text = document.read_text(encoding="utf-8")
    document.write_text(insert_between(text, render(report), BEGIN, END), encoding="utf-8")


def goals(chat: Sequence[ChatFigures]) -> list[str]:
    """Each goal of a language model with what was reached."""
    found = []
    for figures in chat:
        speeds = {speed.num_seqs: speed for speed in figures.decode}
        name = f"{figures.shape} on {figures.target}"
        one = speeds.get(1)
        if one is not None:
            share = one.tokens_per_s / one.limit
            found.append(
                f"{name}, one stream at {GOAL_LIMIT_SHARE:.0%} of the limit: {share:.0%}, "
                f"{_verdict(share >= GOAL_LIMIT_SHARE)}"
            )
        many = speeds.get(64)
        if one is not None and many is not None:
            ratio = many.tokens_per_s / one.tokens_per_s
            found.append(
                f"{name}, 64 streams at {GOAL_STREAMS_RATIO} times one: {ratio:.1f} times, "
                f"{_verdict(ratio >= GOAL_STREAMS_RATIO)}"
            )
    return found


def _decode_table(chat: Sequence[ChatFigures]) -> str:
    rows = [["decode, tokens/s", "streams", "speed", "of the bandwidth's limit"]]
    rows += [
        [
            f"{figures.shape} {figures.precision}, {figures.target}",
            str(speed.num_seqs),
            f"{speed.tokens_per_s:,.0f}",
            f"{speed.tokens_per_s / speed.limit:.0%}",
        ]
        for figures in chat
        for speed in figures.decode
    ]
    return table(rows) if chat else ""


def _latency_table(chat: Sequence[ChatFigures]) -> str:
    if not chat:
        return ""
    sizes = list(chat[0].first_token_s)
    head = ["", *(f"first token, {size:,} tokens, ms" for size in sizes)]
    rows = [[*head, f"{chat[0].num_streams} streams, tokens/s", "load, s"]]
    rows += [
        [
            f"{figures.shape} {figures.precision}, {figures.target}",
            *(f"{1000 * figures.first_token_s[size]:,.1f}" for size in sizes),
            "too few slots" if figures.throughput is None else f"{figures.throughput:,.0f}",
            f"{figures.load_s:.1f}",
        ]
        for figures in chat
    ]
    return table(rows)


def _parity_table(parity: Sequence[ParityFigures]) -> str:
    rows = [["beside the CPU engine in fp32", "steps", "top-1", "mean KL"]]
    rows += [
        [
            f"{figures.model} {figures.precision}, {figures.target}",
            f"{figures.num_steps:,}",
            f"{figures.top1:.2%}",
            f"{figures.mean_kl:.2g}",
        ]
        for figures in parity
    ]
    return table(rows) if parity else ""


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "missed"
