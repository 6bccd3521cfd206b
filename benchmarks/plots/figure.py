"""How all plots look: colours that colour-blind people tell apart, light grids, units on axes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import BenchmarkFailed

try:
    import matplotlib
except ModuleNotFoundError:
    raise BenchmarkFailed(
        "plots need matplotlib, which is not installed: `pip install 'enginery[bench]'`"
    ) from None

matplotlib.use("Agg")  # no window

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

# Okabe and Ito's colours, without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
OURS_COLOUR = COLOURS[1]  # of bars, where the others are blue
MARKERS = "osD^vPX"
_GREY = "#8a8a8a"
_DPI = 144
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "savefig.facecolor": "white",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot as a PNG file, with the sentence that belongs below it."""

    png: bytes
    caption: str


def draw(
    panels: int,
    paint: Callable[[list[Axes]], None],
    caption: str,
    *,
    height: float = 3.4,
    width: float | None = None,
) -> Picture:
    """A row of panels, painted by `paint`.

    Args:
        panels: How many, side by side.
        paint: Gets their axes.
        caption: What is seen, for those who cannot see it too.
        height: Inches.
        width: Inches; by default 4.6 a panel.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width or 4.6 * panels, height), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0].tolist()
        paint(axes)
        target = io.BytesIO()
        figure.savefig(target, dpi=_DPI, format="png", metadata={"Software": None})
    return Picture(target.getvalue(), caption)


def style_of(index: int) -> dict[str, Any]:
    """Colour and marker of the n-th line; the marker tells it in grey print too."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def plain_ticks(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Numbers as people write them; on logarithmic axes 1, 2 and 5 of every decade."""
    formatter = FuncFormatter(lambda value, _: f"{value:,.6g}")
    for axis, wanted, scale in (
        (axes.xaxis, x, axes.get_xscale()),
        (axes.yaxis, y, axes.get_yscale()),
    ):
        if wanted and scale == "log":
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
        if wanted:
            axis.set_major_formatter(formatter)
