"""Plots of servers under load: latency and throughput against load, and how long gaps are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.load import PointReport
from benchmarks.plots.figure import Picture, draw, plain_ticks, style_of
from benchmarks.results import Summary, statistic

Rounds = dict[str, list[list[PointReport]]]  # by server, then by round: the loads
_MODES = {"closed": "clients at once", "open": "requests/s offered", "trace": "trace"}
LEAST_SHARE = 1e-3  # of gaps that is shown


def load_figures(rounds: Rounds) -> dict[str, Picture]:
    """File name (without its ending) -> plot.

    Lines against load need two loads of a kind; with one load servers are compared by bars.
    """
    figures: dict[str, Picture] = {}
    first = next(iter(rounds.values()))[0]
    for mode in ("closed", "open"):
        indices = [index for index, point in enumerate(first) if point.mode == mode]
        if len(indices) > 1:
            figures[f"latency-{mode}"] = _latency(rounds, indices, _MODES[mode])
            figures[f"throughput-{mode}"] = _throughput(rounds, indices, _MODES[mode])
    if any(point.gaps_ms for its in rounds.values() for points in its for point in points):
        figures["gaps"] = _gaps(rounds, len(first))
    if len(rounds) > 1:
        figures["side-by-side"] = _side_by_side(rounds, len(first) - 1)
    return figures


def _values(
    its: Sequence[Sequence[PointReport]], index: int, read: Callable[[Summary], float | None]
) -> list[float]:
    return [v for points in its if (v := read(points[index].summary)) is not None]


def _line(
    axes: Axes,
    its: Sequence[Sequence[PointReport]],
    indices: Sequence[int],
    read: Callable[[Summary], float | None],
    label: str,
    style: dict[str, Any],
    dashes: str = "-",
) -> None:
    """Medians over the rounds; the band reaches from the lowest to the highest."""
    kept = [(i, v) for i in indices if (v := _values(its, i, read))]
    if not kept:
        return
    x = [its[0][i].load for i, _ in kept]
    marker = style["marker"] if dashes == "-" else ""
    middle = [median(v) for _, v in kept]
    axes.plot(x, middle, dashes, label=label, color=style["color"], marker=marker)
    if len(its) > 1:
        low, high = [min(v) for _, v in kept], [max(v) for _, v in kept]
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _latency(rounds: Rounds, indices: Sequence[int], unit: str) -> Picture:
    metrics = (
        ("Time to first token", "ttft_ms", (("p50", "-"), ("p95", "--"))),
        ("Gap between tokens", "itl_ms", (("p50", "-"), ("p95", "--"))),
        ("End to end", "latency_ms", (("p50", "-"), ("p95", "--"))),
    )

    def paint(panels: list[Axes]) -> None:
        for axes, (title, field, statistics) in zip(panels, metrics, strict=True):
            for number, (name, its) in enumerate(rounds.items()):
                for which, dashes in statistics:
                    label = f"{name}, {which}" if len(rounds) > 1 else which
                    read = statistic(field, which)
                    _line(axes, its, indices, read, label, style_of(number), dashes)
            axes.set(title=title, xlabel=unit, ylabel="milliseconds", yscale="log")
            _load_axis(axes, next(iter(rounds.values()))[0], indices)
            plain_ticks(axes, y=True)
        panels[0].legend()

    return draw(3, paint, f"Latency against load ({unit}), milliseconds, logarithmic.")


def _throughput(rounds: Rounds, indices: Sequence[int], unit: str) -> Picture:
    def paint(panels: list[Axes]) -> None:
        axes = panels[0]
        for number, (name, its) in enumerate(rounds.items()):
            _line(axes, its, indices, lambda s: s.output_tokens_per_s, name, style_of(number))
        axes.set(title="Throughput", xlabel=unit, ylabel="output tokens/s")
        axes.set_ylim(bottom=0)
        _load_axis(axes, next(iter(rounds.values()))[0], indices)
        plain_ticks(axes, y=True)
        if len(rounds) > 1:
            axes.legend()

    return draw(1, paint, f"Output tokens/s against load ({unit}).", width=5.4)


def _gaps(rounds: Rounds, num_points: int) -> Picture:
    def paint(panels: list[Axes]) -> None:
        axes = panels[0]
        number = 0
        least = float("inf")
        for name, its in rounds.items():
            for index in range(num_points):
                curves = [points[index].gaps_ms for points in its if points[index].gaps_ms]
                if not curves:
                    continue
                middle = np.median(curves, axis=0)  # [401]
                share = 1 - np.linspace(0, 1, len(middle))
                load = its[0][index].name
                label = load if len(rounds) == 1 else name if num_points == 1 else f"{name}, {load}"
                style = style_of(number)
                shown = share >= LEAST_SHARE
                axes.plot(middle[shown], share[shown], label=label, color=style["color"])
                axes.plot(middle[-1], LEAST_SHARE, linestyle="", **style)
                least = min(least, float(middle[len(middle) // 10]))
                number += 1
        dress_gaps(axes, "Gaps between tokens", least)

    caption = "Share of the gaps between tokens that are longer than so many milliseconds."
    return draw(1, paint, caption, width=6.0, height=3.8)


def dress_gaps(axes: Axes, title: str, least: float) -> None:
    """Titles, scales and a legend for curves of gaps, the shortest near `least` milliseconds."""
    axes.set(
        title=title,
        xlabel="gap, milliseconds; the mark is the longest",
        ylabel="share of gaps that are longer",
        xscale="log",
        yscale="log",
    )
    axes.set_ylim(LEAST_SHARE * 0.8, 1.1)
    axes.set_xlim(left=max(least / 2, 1e-2))
    plain_ticks(axes, x=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
    axes.legend()


def _side_by_side(rounds: Rounds, index: int) -> Picture:
    """Servers by bars, at the last load; whiskers from the lowest round to the highest."""
    metrics = (
        ("Output tokens/s", lambda s: s.output_tokens_per_s, "more is better"),
        ("First token, p50", statistic("ttft_ms", "p50"), "milliseconds, less is better"),
        ("Longest gap", statistic("itl_ms", "max"), "milliseconds, less is better"),
    )
    load = next(iter(rounds.values()))[0][index].name

    def paint(panels: list[Axes]) -> None:
        for axes, (title, read, unit) in zip(panels, metrics, strict=True):
            bars = [(name, v) for name, its in rounds.items() if (v := _values(its, index, read))]
            paint_bars(axes, bars, f"{title}, {load}", unit)

    return draw(3, paint, f"Servers side by side, {load}.", height=1.2 + 0.45 * len(rounds))


def paint_bars(
    axes: Axes,
    bars: Sequence[tuple[str, list[float]]],
    title: str,
    unit: str,
    ours: str | None = None,
) -> None:
    """Horizontal bars of medians, each with its number, and whiskers over the rounds.

    With a colour for ours, Enginery's bars have it and all others the same one.
    """
    most = max((max(values) for _, values in bars), default=1.0)
    for row, (name, values) in enumerate(bars):
        middle = median(values)
        colour = style_of(row)["color"]
        if ours is not None:
            colour = ours if name.startswith("Enginery") else style_of(0)["color"]
        axes.barh(row, middle, color=colour, height=0.65)
        if len(values) > 1:
            spread = [[middle - min(values)], [max(values) - middle]]
            axes.errorbar(middle, row, xerr=spread, fmt="none", ecolor="#333333", capsize=3, lw=1)
        digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
        axes.text(max(values) + 0.02 * most, row, f"{middle:,.{digits}f}", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.22 * most)
    axes.grid(axis="y", visible=False)
    axes.set(title=title, xlabel=unit)
    plain_ticks(axes, x=True)


def _load_axis(axes: Axes, points: Sequence[PointReport], indices: Sequence[int]) -> None:
    """Loads that were measured, as ticks; logarithmic where they span a wide range."""
    loads = sorted(points[i].load for i in indices)
    if loads[-1] / loads[0] >= 8:
        axes.set_xscale("log", base=2)
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.minorticks_off()
