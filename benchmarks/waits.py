"""`python -m benchmarks waits`: how long streams wait for a prompt, and a prompt for its prefix."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import msgspec
import numpy as np
from cyclopts import Group, Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.engine import choose_engine
from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import describe_machine
from benchmarks.options import (
    EngineId,
    EngineTarget,
    JsonTarget,
    RuntimeThreads,
    check_at_least_one,
    check_json_target,
)
from benchmarks.report import write_json
from benchmarks.throughput import Engine
from engines import __version__
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.store import find_engines

_LOAD = Group("Workload", sort_key=2)
_DECODE_STEPS = 16  # timed before the prompt arrives


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsConfig:
    """Measure what a long prompt costs those that stream, and what a known prefix saves."""

    engine_dir: EngineTarget
    model: EngineId = None
    threads: RuntimeThreads = None
    streams: Annotated[int, Parameter(help="sequences that stream meanwhile", group=_LOAD)] = 7
    context: Annotated[int, Parameter(help="tokens of each stream at first", group=_LOAD)] = 128
    prompt_tokens: Annotated[
        int, Parameter(help="tokens of the prompt that arrives", group=_LOAD)
    ] = 2048
    prefix_tokens: Annotated[
        int, Parameter(help="tokens of a prompt that is computed twice", group=_LOAD)
    ] = 1024
    new_tokens: Annotated[
        int, Parameter(help="of those, at the end, that differ the second time", group=_LOAD)
    ] = 16
    repetitions: Annotated[int, Parameter(help="of each; medians count", group=_LOAD)] = 3
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_json_target(self.json)
        numbers = ("streams", "context", "prompt_tokens", "prefix_tokens", "new_tokens")
        check_at_least_one(self, (*numbers, "repetitions", "threads"))
        if self.new_tokens >= self.prefix_tokens:
            raise ValueError(
                f"new_tokens is {self.new_tokens}, but has to be less than prefix_tokens, "
                f"{self.prefix_tokens}"
            )


class WaitsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the repetitions, in milliseconds."""

    engine: str
    precision: str
    machine: dict[str, str]
    streams: int
    prompt_tokens: int
    prefix_tokens: int
    new_tokens: int
    decode_step_ms: float
    longest_gap_ms: float  # between two tokens of a stream, while the prompt is computed
    prompt_ms: float  # until the first token of the prompt that arrives
    cold_ms: float  # until the first token of a prompt that is new
    cached_ms: float  # the same of one that is new only at its end

    @property
    def gap_in_steps(self) -> float:
        return self.longest_gap_ms / self.decode_step_ms

    @property
    def cached_share(self) -> float:
        return self.cached_ms / self.cold_ms


class WaitsMeter:
    """Times an engine's answers; prompts are random tokens."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.perf_counter) -> None:
        self._engine = engine
        self._clock = clock
        self._rng = np.random.default_rng(0)
        self._ids = itertools.count(1)

    def gap(self, streams: int, context: int, prompt_tokens: int) -> tuple[float, float, float]:
        """Seconds of a decode step, of the longest gap of a stream, and of the prompt's wait.

        Raises:
            BenchmarkFailed: The engine does not run so many, or has too short a context.
        """
        engine = self._engine
        if streams + 1 > engine.max_num_seqs or prompt_tokens + 1 > engine.max_context:
            raise BenchmarkFailed(
                f"{streams} streams and a prompt of {prompt_tokens} tokens were asked for, but the "
                f"engine runs {engine.max_num_seqs} sequences of {engine.max_context} tokens"
            )
        running = [self._add(self._tokens(context), engine.max_context) for _ in range(streams)]
        missing = set(running)
        while missing:
            missing -= {output.seq_id for output in engine.step()}
        steps = [self._timed_step() for _ in range(_DECODE_STEPS)]
        started = self._clock()
        prompt = self._add(self._tokens(prompt_tokens), 1)
        last = dict.fromkeys(running, started)
        longest = 0.0
        while True:
            told = {output.seq_id for output in engine.step()}
            now = self._clock()
            for seq_id in told & last.keys():
                longest = max(longest, now - last[seq_id])
                last[seq_id] = now
            if prompt in told:
                break
        # The step behind the prompt's last chunk ends the last gap.
        longest = max(longest, self._timed_step() + now - min(last.values()))
        for seq_id in running:
            engine.abort(seq_id)
        self._drain()
        return median(steps), longest, now - started

    def first_token(self, num_tokens: int, new_tokens: int) -> tuple[float, float]:
        """Seconds until the first token of a new prompt, and of it with another end."""
        prompt = self._tokens(num_tokens)
        cold = self._time_prompt(prompt)
        return cold, self._time_prompt(prompt[:-new_tokens] + self._tokens(new_tokens))

    def _time_prompt(self, token_ids: list[int]) -> float:
        started = self._clock()
        self._add(token_ids, 1)
        self._drain()
        return self._clock() - started

    def _timed_step(self) -> float:
        started = self._clock()
        self._engine.step()
        return self._clock() - started

    def _tokens(self, count: int) -> list[int]:
        token_ids: list[int] = self._rng.integers(self._engine.vocab_size, size=count).tolist()
        return token_ids

    def _add(self, token_ids: list[int], max_tokens: int) -> int:
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)
        seq_id = next(self._ids)
        self._engine.add(Sequence.from_prompt(seq_id, token_ids, sampling))
        return seq_id

    def _drain(self) -> None:
        while self._engine.has_work:
            self._engine.step()


def run_waits(config: WaitsConfig) -> int:
    """Load the engine, measure, report."""
    from engines.load import EngineOptions, load_llm_engine  # only now: it loads the runtime

    folder = choose_engine(find_engines(config.engine_dir), config.model)
    options = EngineOptions(max_num_seqs=config.streams + 1, num_threads=config.threads)
    engine = load_llm_engine(folder, options)
    try:
        meter = WaitsMeter(engine)
        meter.first_token(2 * config.new_tokens, config.new_tokens)  # warm-up
        repeat = range(config.repetitions)
        firsts = [meter.first_token(config.prefix_tokens, config.new_tokens) for _ in repeat]
        gaps = [meter.gap(config.streams, config.context, config.prompt_tokens) for _ in repeat]
    finally:
        engine.close()
    cold, cached = (median(times) * 1e3 for times in zip(*firsts, strict=True))
    step, gap, prompt = (median(times) * 1e3 for times in zip(*gaps, strict=True))
    report = WaitsReport(
        engine=folder.manifest.id,
        precision=folder.manifest.precision,
        machine=describe_machine("onnxruntime") | {"enginery": __version__},
        streams=config.streams,
        prompt_tokens=config.prompt_tokens,
        prefix_tokens=config.prefix_tokens,
        new_tokens=config.new_tokens,
        decode_step_ms=step,
        longest_gap_ms=gap,
        prompt_ms=prompt,
        cold_ms=cold,
        cached_ms=cached,
    )
    if config.json is not None:
        write_json(report, config.json)
    if config.json != "-":
        Console().print(waits_table(report))
    return 0


def waits_table(report: WaitsReport) -> Table:
    """A line for each figure."""
    table = Table(
        title=f"{report.engine} ({report.precision}), medians",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    streams = f"{report.streams} streams"
    prefix = f"a prompt of {report.prefix_tokens:,} tokens"
    for name, value in (
        (f"decode step of {streams}", f"{report.decode_step_ms:.1f} ms"),
        (f"longest gap while {report.prompt_tokens:,} tokens arrive", _gap(report)),
        ("until their first token", f"{report.prompt_ms:,.0f} ms"),
        (f"first token of {prefix}, new", f"{report.cold_ms:,.0f} ms"),
        (f"the same, known but for {report.new_tokens}", _cached(report)),
    ):
        table.add_row(name, value)
    return table


def _gap(report: WaitsReport) -> str:
    return f"{report.longest_gap_ms:.1f} ms ({report.gap_in_steps:.1f} decode steps)"


def _cached(report: WaitsReport) -> str:
    return f"{report.cached_ms:.1f} ms (1/{1 / report.cached_share:.0f})"
