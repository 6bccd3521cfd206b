"""`python -m benchmarks growth`: how cost grows with context, streams and the size of the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Group, Parameter
from rich.console import Console

from benchmarks.comparison import facts, shown_pictures
from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import MIB, OthersMeter, describe_machine, resident_bytes
from benchmarks.markdown import hide_paths, insert_between, own_command, table
from benchmarks.options import REPORT, UpdateTarget, check_above_zero, check_at_least_one, numbers
from benchmarks.throughput import ThroughputMeter
from engines import __version__
from engines.errors import EngineryError
from engines.store import EngineFolder, find_engines

BEGIN_MARK = "<!-- growth:begin -->"
END_MARK = "<!-- growth:end -->"
_ENGINES = Group("Engines", sort_key=1)
_LOAD = Group("Workload", sort_key=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthConfig:
    """Measure how prefill and decode of engines slow down with context, streams and size."""

    engine: Annotated[
        tuple[Path, ...],
        Parameter(help="engines, or folders of them", negative="", group=_ENGINES),
    ]
    contexts: Annotated[tuple[int, ...], numbers("tokens of each stream", _LOAD)] = (
        128,
        512,
        2048,
        8192,
    )
    streams: Annotated[tuple[int, ...], numbers("at once", _LOAD)] = (1, 2, 4, 8, 16, 32)
    steps: Annotated[int, Parameter(help="timed of each cell", group=_LOAD)] = 16
    threads: Annotated[
        int | None, Parameter(help="of the runtime; default: the server's choice", group=_LOAD)
    ] = None
    max_minutes: Annotated[
        float | None, Parameter(help="begin no cell after so long", group=_LOAD)
    ] = None
    max_others: Annotated[
        float,
        Parameter(
            help="share of the cores, up to 1, that others may use; cells of --json above it are "
            "measured again",
            group=_LOAD,
        ),
    ] = 0.1
    json: Annotated[
        Path | None,
        Parameter(help="write all figures here; cells that it holds are kept", group=REPORT),
    ] = None
    update: UpdateTarget = None
    plots: Annotated[Path | None, Parameter(help="folder for the plot", group=REPORT)] = None

    def __post_init__(self) -> None:
        check_at_least_one(self, ("contexts", "streams", "steps", "threads"))
        check_above_zero(self, ("max_minutes",))
        if not 0 <= self.max_others <= 1:
            raise ValueError(f"max_others is {self.max_others}, but it must be from 0 to 1")
        if not (self.contexts and self.streams):
            raise ValueError("contexts and streams must each name at least one number")
        if self.update is not None:
            insert_between(self.update.read_text(encoding="utf-8"), "", BEGIN_MARK, END_MARK)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One engine at one context: its prefill, and its decode at one number of streams.

    `prefill` is tokens/s of a prompt of that length; `step_ms` the time of a step in which all
    streams get a token.
    """

    engine: str
    context: int
    streams: int
    prefill: float
    step_ms: float
    rss_bytes: int
    others_share: float | None

    @property
    def tokens_per_s(self) -> float:
        return 1e3 * self.streams / self.step_ms


class GrowthReport(msgspec.Struct, frozen=True, kw_only=True):
    """All cells, in the order in which they were measured."""

    date: str
    machine: dict[str, str]
    command: str
    cells: list[Cell]
    left_out: list[str]


def run_growth(config: GrowthConfig) -> int:
    """Measure cell after cell; one that does not fit is left out with a sentence."""
    console = Console(stderr=True, soft_wrap=True)
    folders = [folder for path in config.engine for folder in find_engines(path)]
    cells = _kept(config)
    left_out = list[str]()
    start = time.monotonic()

    def is_over() -> bool:
        limit = config.max_minutes
        return limit is not None and time.monotonic() - start > 60 * limit

    for folder in folders:
        for context in config.contexts:
            done = {c.streams for c in cells if (c.engine, c.context) == _key(folder, context)}
            missing = sorted(set(config.streams) - done)
            if is_over() or not missing:
                continue
            try:
                with console.status(f"{folder.manifest.id} at {context}"):
                    for cell in measure_context(folder, context, missing, config):
                        cells.append(cell)
                        _write(config, cells, left_out)
                        if is_over():
                            break
            except EngineryError as error:
                left_out.append(f"{folder.manifest.id} at {context} is left out: {error}")
                console.print(left_out[-1], markup=False, highlight=False)
    print(markdown(_write(config, cells, left_out)))
    return 0


def _kept(config: GrowthConfig) -> list[Cell]:
    """What `--json` holds already, without what others disturbed."""
    if config.json is None or not config.json.exists():
        return []
    cells = msgspec.json.decode(config.json.read_bytes(), type=GrowthReport).cells
    return [cell for cell in cells if (cell.others_share or 0.0) <= config.max_others]


def measure_context(
    folder: EngineFolder, context: int, streams: Sequence[int], config: GrowthConfig
) -> Iterator[Cell]:
    """Load the engine for one length of context and measure it at these numbers of streams.

    All streams hold the same prompt: it is computed once and copied, which costs decode nothing.

    Raises:
        EngineError: The engine's context or the memory is too small.
    """
    from engines.load import EngineOptions, load_llm_engine  # only now: it loads the runtime

    spec = folder.manifest.chat
    longest = context + config.steps + 8 + 2 * max(streams)
    if spec is None or longest > spec.max_context:
        limit = "no language model" if spec is None else f"a context of {spec.max_context} tokens"
        raise BenchmarkFailed(f"{longest} tokens are needed, but the engine has {limit}")
    options = EngineOptions(max_num_seqs=max(streams), num_threads=config.threads)
    engine = load_llm_engine(folder, replace(options, max_context=longest))
    try:
        meter = ThroughputMeter(engine)
        meter.prefill(min(context, 128))  # warm-up
        others = OthersMeter()
        prefill = meter.prefill(context)
        for count in streams:
            speed = meter.decode_alike(count, context, config.steps)
            yield Cell(
                engine=folder.manifest.id,
                context=context,
                streams=count,
                prefill=prefill,
                step_ms=1e3 * count / speed,
                rss_bytes=resident_bytes()[0],
                others_share=others.share(),
            )
            others = OthersMeter()
    finally:
        engine.close()


def markdown(report: GrowthReport, pictures: Sequence[str] = ()) -> str:
    """A table for each engine: a row a context, a column a number of streams."""
    if not report.cells:
        return "Nothing was measured.\n"
    parts = []
    for engine in dict.fromkeys(cell.engine for cell in report.cells):
        own = [cell for cell in report.cells if cell.engine == engine]
        streams = sorted({cell.streams for cell in own})
        head = ["context", "prefill, tokens/s", *(f"{n} x" for n in streams), "memory, MiB"]
        rows = []
        for context in sorted({cell.context for cell in own}):
            row = {cell.streams: cell for cell in own if cell.context == context}
            first = next(iter(row.values()))
            steps = [_shown(row.get(count)) for count in streams]
            memory = max(cell.rss_bytes for cell in row.values()) / MIB
            rows.append([f"{context:,}", f"{first.prefill:,.0f}", *steps, f"{memory:,.0f}"])
        parts += [
            f"{engine}: ms of a decode step of so many streams (tokens/s)",
            table([head, *rows]),
        ]
    parts += pictures
    shares = [cell.others_share for cell in report.cells if cell.others_share is not None]
    parts += [
        facts(report.date, report.machine, [f"Enginery {__version__}"], shares, report.left_out),
        f"```\n{report.command}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _shown(cell: Cell | None) -> str:
    return "-" if cell is None else f"{cell.step_ms:,.1f} ({cell.tokens_per_s:,.0f})"


def _key(folder: EngineFolder, context: int) -> tuple[str, int]:
    return folder.manifest.id, context


def _write(config: GrowthConfig, cells: list[Cell], left_out: list[str]) -> GrowthReport:
    report = GrowthReport(
        date=date.today().isoformat(),
        machine=describe_machine("onnxruntime"),
        command=hide_paths(own_command("growth"), {path: path.name for path in config.engine}),
        cells=cells,
        left_out=left_out,
    )
    if config.json is not None:
        config.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    pictures: list[str] = []
    if config.plots is not None and cells:
        from benchmarks.plots.growth import growth_picture  # only now: it loads matplotlib

        picture = growth_picture(report)
        config.plots.mkdir(parents=True, exist_ok=True)
        (config.plots / "growth.png").write_bytes(picture.png)
        captions = {"growth.png": picture.caption}
        pictures = shown_pictures(config.plots, captions, config.update)
    if config.update is not None:
        document = config.update.read_text(encoding="utf-8")
        text = insert_between(document, markdown(report, pictures), BEGIN_MARK, END_MARK)
        config.update.write_text(text, encoding="utf-8")
    return report
