"""The plot of how cost grows: time of a decode step against streams, speed of prefill."""

from __future__ import annotations

from matplotlib.axes import Axes

from benchmarks.growth import GrowthReport
from benchmarks.plots.figure import Picture, draw, plain_ticks, style_of

_MARGIN = 1.3


def growth_picture(report: GrowthReport) -> Picture:
    """A panel for each engine, a line for each length of context."""
    engines = list(dict.fromkeys(cell.engine for cell in report.cells))
    times = [cell.step_ms for cell in report.cells]
    limits = min(times) / _MARGIN, max(times) * _MARGIN  # of all panels, which are to be compared

    def paint(panels: list[Axes]) -> None:
        for axes, engine in zip(panels, engines, strict=True):
            own = [cell for cell in report.cells if cell.engine == engine]
            for number, context in enumerate(sorted({cell.context for cell in own})):
                line = sorted(
                    (cell.streams, cell.step_ms) for cell in own if cell.context == context
                )
                x, y = zip(*line, strict=True)
                axes.plot(x, y, label=f"{context:,} tokens", **style_of(number))
            axes.set(title=engine, xlabel="streams", ylabel="a decode step, ms")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_ylim(*limits)
            streams = sorted({cell.streams for cell in own})
            axes.set_xticks(streams, [str(count) for count in streams])
            axes.minorticks_off()
            plain_ticks(axes, y=True)
            axes.legend(title="context of each stream")

    caption = "Milliseconds of a decode step against the number of streams, by context."
    return draw(len(engines), paint, caption, height=3.8)
