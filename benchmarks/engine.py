"""`python -m benchmarks engine`: speed, step time by part and memory of an engine without HTTP."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Annotated, Any

import msgspec
from cyclopts import Group, Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import MIB, describe_machine, resident_bytes
from benchmarks.node_profile import RunTimes, profile_engine, profile_table
from benchmarks.options import (
    EngineId,
    EngineTarget,
    JsonTarget,
    RuntimeThreads,
    check_at_least_one,
    check_json_target,
    numbers,
)
from benchmarks.report import write_json
from benchmarks.step_profile import SAMPLINGS, StepProfiler, StepTimes, steps_table
from benchmarks.throughput import ThroughputMeter
from engines import __version__
from engines.store import EngineFolder, find_engines

_LOAD = Group("Workload", sort_key=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBenchConfig:
    """Measure one engine without a server: prefill, decode, where a step's time goes, memory."""

    engine: EngineTarget
    model: EngineId = None
    threads: RuntimeThreads = None
    prefill_tokens: Annotated[
        int, Parameter(help="tokens of the prompt, computed in the engine's chunks", group=_LOAD)
    ] = 512
    prefill_chunk: Annotated[
        int | None, Parameter(help="tokens of a chunk; default: the engine's", group=_LOAD)
    ] = None
    decode_context: Annotated[
        int, Parameter(help="tokens of a sequence before decode is timed", group=_LOAD)
    ] = 128
    decode_tokens: Annotated[int, Parameter(help="timed tokens of a sequence", group=_LOAD)] = 64
    num_seqs: Annotated[tuple[int, ...], numbers("sequences at once", _LOAD)] = (1, 2, 4, 8, 16)
    repetitions: Annotated[int, Parameter(help="of each; medians count", group=_LOAD)] = 3
    parts: Annotated[
        tuple[int, ...],
        numbers("sequences at once while a step is timed part by part; 0 for none", _LOAD),
    ] = (1, 8)
    steps: Annotated[int, Parameter(help="timed part by part, of each row", group=_LOAD)] = 64
    profile: Annotated[
        bool,
        Parameter(
            help="also print the runtime's profile: the last chunk of the prompt, and decode steps "
            "at each of --parts, by kind of node",
            group=_LOAD,
        ),
    ] = False
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_json_target(self.json)
        limits = ("prefill_tokens", "decode_context", "decode_tokens", "repetitions", "steps")
        check_at_least_one(self, (*limits, "threads", "prefill_chunk"))
        if not self.num_seqs or min(self.num_seqs) < 1:
            raise ValueError("num_seqs must name numbers of sequences, each at least 1")
        if min(self.parts, default=0) < 0:
            raise ValueError(f"parts is {min(self.parts)}, but it must be at least 0")

    @property
    def profiled(self) -> list[int]:
        """Numbers of sequences at which a step is timed part by part."""
        return [count for count in self.parts if count]


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """All figures; `decode_tokens_per_s` is by number of sequences, of all together."""

    engine: str
    precision: str
    target: str
    machine: dict[str, str]
    settings: dict[str, Any]
    load_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: dict[int, float]
    steps: list[StepTimes]
    loaded_bytes: int  # resident after loading
    used_bytes: int  # resident after the run
    peak_bytes: int
    profile: list[RunTimes] = []


def run_engine(config: EngineBenchConfig) -> int:
    """Load the engine, measure it, report."""
    folder = choose_engine(find_engines(config.engine), config.model)
    report = measure_engine(config, folder)
    if config.json is not None:
        write_json(report, config.json)
    if config.json != "-":
        console = Console()
        for table in engine_tables(report):
            console.print(table)
    return 0


def choose_engine(folders: list[EngineFolder], model: str | None) -> EngineFolder:
    """The engine with the id `model`, or the only one.

    Raises:
        BenchmarkFailed: There is none of that id, or there are several to choose from.
    """
    chosen = [folder for folder in folders if model in (None, folder.manifest.id)]
    if len(chosen) == 1:
        return chosen[0]
    ids = ", ".join(folder.manifest.id for folder in folders)
    if model is None:
        raise BenchmarkFailed(f"the folder holds {ids}: choose one with --model")
    raise BenchmarkFailed(f"model is {model!r}, but the folder holds {ids}")


def measure_engine(config: EngineBenchConfig, folder: EngineFolder) -> EngineReport:
    """Load an engine in this process and measure it."""
    # Only now: they load the runtime.
    from engines.load import EngineOptions, load_llm_engine
    from engines.machine import usable_cores

    options = EngineOptions(
        max_num_seqs=max(config.num_seqs + config.parts), num_threads=config.threads
    )
    if config.prefill_chunk is not None:
        options = replace(options, prefill_chunk=config.prefill_chunk)
    start = time.perf_counter()
    engine = load_llm_engine(folder, options)
    load_s = time.perf_counter() - start
    loaded_bytes, _ = resident_bytes()
    try:
        prefill, decode = _measure(config, ThroughputMeter(engine))
        used_bytes, peak_bytes = resident_bytes()
        profiler = StepProfiler(engine)
        steps = [
            profiler.measure(count, config.decode_context, config.steps, sampling)
            for count in config.profiled
            for sampling in SAMPLINGS
        ]
    finally:
        engine.close()
    profile: list[RunTimes] = []
    if config.profile:
        threads = config.threads or usable_cores()
        profile = profile_engine(
            folder, threads, config.prefill_tokens, config.decode_context, config.profiled
        )
    manifest = folder.manifest
    return EngineReport(
        engine=manifest.id,
        precision=manifest.precision,
        target=manifest.target,
        machine=describe_machine("onnxruntime") | {"enginery": __version__},
        settings={
            name: value
            for name, value in asdict(config).items()
            if name not in ("engine", "json", "model")
        },
        load_s=load_s,
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        steps=steps,
        loaded_bytes=loaded_bytes,
        used_bytes=used_bytes,
        peak_bytes=peak_bytes,
        profile=profile,
    )


def engine_tables(report: EngineReport) -> list[Table]:
    """The figures, one a row, and where the time of a step goes."""
    table = Table(
        title=f"{report.engine} ({report.precision}, {report.target})",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    settings = report.settings
    prefill = f"prefill, {settings['prefill_tokens']} tokens"
    table.add_row(prefill, f"{report.prefill_tokens_per_s:,.1f}", "tokens/s")
    for count, speed in report.decode_tokens_per_s.items():
        name = f"decode, {count} " + ("sequence" if count == 1 else "sequences")
        table.add_row(name, f"{speed:,.1f}", "tokens/s")
    table.add_row("load time", f"{report.load_s:.2f}", "s")
    table.add_row("resident when loaded", f"{report.loaded_bytes / MIB:,.0f}", "MiB")
    table.add_row("resident after the run", f"{report.used_bytes / MIB:,.0f}", "MiB")
    table.add_row("peak resident", f"{report.peak_bytes / MIB:,.0f}", "MiB")
    tables = [table]
    if report.steps:
        tables.append(steps_table(report.steps))
    if report.profile:
        tables.append(profile_table(report.profile))
    return tables


def _measure(config: EngineBenchConfig, meter: ThroughputMeter) -> tuple[float, dict[int, float]]:
    repeat = range(config.repetitions)
    meter.prefill(config.prefill_tokens)  # warm-up
    prefill = median(meter.prefill(config.prefill_tokens) for _ in repeat)
    decode = {
        count: median(
            meter.decode(count, config.decode_context, config.decode_tokens) for _ in repeat
        )
        for count in config.num_seqs
    }
    return prefill, decode
