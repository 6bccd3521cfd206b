"""`python -m benchmarks steps`: where the time of a decode step goes, the runtime's and our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import msgspec
import numpy as np
from cyclopts import Group, Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import describe_machine
from benchmarks.offline import choose_engine
from benchmarks.options import JsonTarget, check_at_least_one, check_json_target
from benchmarks.report import write_json
from engines import __version__
from engines.llm.engine import LLMEngine
from engines.llm.runner import Runner, RunOutput
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.store import find_engines

_ENGINE = Group("Engine", sort_key=1)
_LOAD = Group("Workload", sort_key=2)

SAMPLINGS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "top-k 20, top-p 0.8": {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "full distribution": {"temperature": 1.0},
    "top-p 0.95": {"temperature": 1.0, "top_p": 0.95},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsConfig:
    """Measure the engine's own time in a decode step: everything that is not the runtime."""

    engine_dir: Annotated[Path, Parameter(help="an engine or a folder of engines", group=_ENGINE)]
    model: Annotated[
        str | None, Parameter(help="the engine's id, when the folder holds several", group=_ENGINE)
    ] = None
    threads: Annotated[
        int | None, Parameter(help="of the runtime; default: the server's choice", group=_ENGINE)
    ] = None
    num_seqs: Annotated[
        tuple[int, ...],
        Parameter(help="sequences at once", consume_multiple=True, negative="", group=_LOAD),
    ] = (1, 8)
    context: Annotated[int, Parameter(help="tokens of a sequence at first", group=_LOAD)] = 128
    steps: Annotated[int, Parameter(help="timed steps of each row of the table", group=_LOAD)] = 64
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_json_target(self.json)
        check_at_least_one(self, ("context", "steps", "threads"))
        if not self.num_seqs or min(self.num_seqs) < 1:
            raise ValueError("num_seqs must name numbers of sequences, each at least 1")


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the steps, in milliseconds; `own_share` is that of a step's whole time."""

    num_seqs: int
    sampling: str
    step_ms: float
    own_ms: float
    own_share: float


class StepsReport(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of one engine."""

    engine: str
    precision: str
    machine: dict[str, str]
    context: int
    rows: list[StepTimes]


class TimedRunner:
    """Adds up the time that a runner's runs take; everything else is passed on."""

    def __init__(self, runner: Runner, clock: Callable[[], float]) -> None:
        self._runner = runner
        self._clock = clock
        self.elapsed = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)

    def run(self, batch: Any) -> RunOutput:
        start = self._clock()
        output = self._runner.run(batch)
        self.elapsed += self._clock() - start
        return output


class StepProfiler:
    """Times the decode steps of one engine, part by part."""

    def __init__(self, engine: LLMEngine, clock: Callable[[], float] = time.perf_counter) -> None:
        self._engine = engine
        self._clock = clock
        self._timed = TimedRunner(engine.runner, clock)
        engine.runner = self._timed  # type: ignore[assignment]  # it passes on what it lacks
        self._rng = np.random.default_rng(0)

    def measure(self, num_seqs: int, context: int, num_steps: int, sampling: str) -> StepTimes:
        """Medians over `num_steps` steps in which `num_seqs` sequences advance.

        Raises:
            BenchmarkFailed: The engine runs fewer sequences, or its context is too short.
        """
        engine = self._engine
        if num_seqs > engine.max_num_seqs or context + num_steps + 4 > engine.max_context:
            raise BenchmarkFailed(
                f"{num_seqs} sequences of {context + num_steps + 4} tokens were asked for, but the "
                f"engine runs {engine.max_num_seqs} of {engine.max_context}"
            )
        for seq_id in range(num_seqs):
            engine.add(self._sequence(seq_id, context, sampling))
        while len(engine.scheduler.running) < num_seqs:
            engine.step()
        steps, own = [], []
        for _ in range(num_steps):
            self._timed.elapsed = 0.0
            start = self._clock()
            engine.step()
            steps.append(self._clock() - start)
            own.append(steps[-1] - self._timed.elapsed)
        for seq_id in range(num_seqs):
            engine.abort(seq_id)
        step_ms, own_ms = median(steps) * 1e3, median(own) * 1e3
        return StepTimes(
            num_seqs=num_seqs,
            sampling=sampling,
            step_ms=step_ms,
            own_ms=own_ms,
            own_share=own_ms / step_ms if step_ms else 0.0,
        )

    def _sequence(self, seq_id: int, context: int, sampling: str) -> Sequence:
        prompt = self._rng.integers(self._engine.vocab_size, size=context).tolist()
        room = self._engine.max_context - context
        params = SamplingParams(
            max_tokens=room, ignore_eos=True, seed=seq_id, **SAMPLINGS[sampling]  # type: ignore[arg-type]
        )  # fmt: skip
        return Sequence.from_prompt(seq_id, prompt, params)


def run_steps(config: StepsConfig) -> int:
    """Load the engine, measure each number of sequences with each sampling, report."""
    from engines.load import EngineOptions, load_llm_engine  # only now: it loads the runtime

    folder = choose_engine(find_engines(config.engine_dir), config.model)
    options = EngineOptions(max_num_seqs=max(config.num_seqs), num_threads=config.threads)
    engine = load_llm_engine(folder, options)
    try:
        profiler = StepProfiler(engine)
        rows = [
            profiler.measure(count, config.context, config.steps, sampling)
            for count in config.num_seqs
            for sampling in SAMPLINGS
        ]
    finally:
        engine.close()
    report = StepsReport(
        engine=folder.manifest.id,
        precision=folder.manifest.precision,
        machine=describe_machine("onnxruntime") | {"enginery": __version__},
        context=config.context,
        rows=rows,
    )
    if config.json is not None:
        write_json(report, config.json)
    if config.json != "-":
        Console().print(steps_table(report))
    return 0


def steps_table(report: StepsReport) -> Table:
    """A line for each number of sequences and sampling."""
    table = Table(
        title=f"{report.engine} ({report.precision}), medians over decode steps",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("sequences", justify="right")
    table.add_column("sampling")
    for name in ("step, ms", "our own, ms", "share"):
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(
            str(row.num_seqs),
            row.sampling,
            f"{row.step_ms:.2f}",
            f"{row.own_ms:.3f}",
            f"{row.own_share:.1%}",
        )
    return table
