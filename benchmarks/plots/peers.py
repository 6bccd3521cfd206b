"""Plots of a comparison with peers: bars side by side, and the gaps that clients see over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from benchmarks.peers.report import Comparison, Contestant, Figure, client_figures, engine_figures
from benchmarks.plots.figure import OURS_COLOUR, Picture, draw, style_of
from benchmarks.plots.loads import LEAST_SHARE, dress_gaps, paint_bars

_ROW_INCHES = 0.32


def write_peer_plots(comparison: Comparison, folder: Path) -> dict[str, str]:
    """Write `peers-engine.png`, `peers-http.png`, `peers-clients.png` and `peers-gaps.png`.

    Returns:
        File name -> caption, of those whose stage was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captions: dict[str, str] = {}
    for name, picture in peer_figures(comparison).items():
        (folder / f"{name}.png").write_bytes(picture.png)
        captions[f"{name}.png"] = picture.caption
    return captions


def peer_figures(comparison: Comparison) -> dict[str, Picture]:
    """File name (without its ending) -> plot, for the stages that were measured."""
    contestants = comparison.contestants
    speeds = engine_figures(comparison.workload)[:-2]  # without start-up and memory
    figures: dict[str, Picture] = {}
    if any(c.engine for c in contestants):
        figures["peers-engine"] = _bars(contestants, speeds, "tokens/s, more is better")
    for stage, name in (("http", "peers-http"), ("clients", "peers-clients")):
        rate, first, _, longest, *_ = client_figures("http" if stage == "http" else "clients")
        if any(rate.read(c) for c in contestants):
            figures[name] = _bars(contestants, [rate, first, longest], None)
    if any(m.gaps_ms for c in contestants for m in c.http):
        figures["peers-gaps"] = _gaps(contestants)
    return figures


def _bars(
    contestants: Sequence[Contestant], figures: Sequence[Figure], unit: str | None
) -> Picture:
    rows = [c for c in contestants if any(figure.read(c) for figure in figures)]

    def paint(panels: list[Axes]) -> None:
        for axes, figure in zip(panels, figures, strict=True):
            bars = [(c.label, values) for c in rows if (values := figure.read(c))]
            title, _, own_unit = figure.title.partition(", ")
            hint = "less is better" if figure.is_less else "more is better"
            label = unit or f"{own_unit}, {hint}".removeprefix(", ")
            paint_bars(axes, bars, figure.title if unit else title, label, OURS_COLOUR)
        for axes in panels[1:]:
            if len(axes.get_yticks()) == len(rows):
                axes.set_yticklabels([])

    names = ", ".join(figure.title for figure in figures)
    return draw(
        len(figures), paint, f"Peers side by side: {names}.", height=1.1 + _ROW_INCHES * len(rows)
    )


def _gaps(contestants: Sequence[Contestant]) -> Picture:
    def paint(panels: list[Axes]) -> None:
        axes = panels[0]
        measured = [c for c in contestants if any(m.gaps_ms for m in c.http)]
        least = float("inf")
        for number, contestant in enumerate(measured):
            curves = [m.gaps_ms for m in contestant.http if m.gaps_ms]
            middle = np.median(curves, axis=0)  # [401]
            share = 1 - np.linspace(0, 1, len(middle))
            shown = share >= LEAST_SHARE
            style = style_of(number)
            axes.plot(middle[shown], share[shown], label=contestant.label, color=style["color"])
            axes.plot(middle[-1], LEAST_SHARE, linestyle="", **style)
            least = min(least, float(middle[len(middle) // 10]))
        dress_gaps(axes, "Gaps between tokens, eight clients over HTTP", least)

    caption = "Share of the gaps between tokens that are longer than so many milliseconds."
    return draw(1, paint, caption, width=6.4, height=3.8)
