"""Where the time of a decode step goes: the runtime's, and our own part by part."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from engines.llm.engine import LLMEngine
from engines.llm.runner import Runner
from engines.llm.sampler import Sampler
from engines.llm.sampling_params import SamplingParams
from engines.llm.scheduler import Scheduler
from engines.llm.sequence import Sequence

SAMPLINGS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "top-k 20, top-p 0.8": {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "full distribution": {"temperature": 1.0},
    "top-p 0.95": {"temperature": 1.0, "top_p": 0.95},
}


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the steps, in milliseconds; `own_share` is that of a step's whole time.

    `own_ms` is all that is not the runtime: scheduling, sampling, updating and what is between.
    """

    num_seqs: int
    sampling: str
    step_ms: float
    own_ms: float
    schedule_ms: float
    sample_ms: float
    update_ms: float
    own_share: float


@dataclass(frozen=True, slots=True)
class StepParts:
    """Milliseconds of one step and of its parts."""

    step_ms: float
    run_ms: float
    schedule_ms: float
    sample_ms: float
    update_ms: float

    @property
    def own_ms(self) -> float:
        """What is not the runtime's."""
        return self.step_ms - self.run_ms


class Timed:
    """Adds up the time of some methods of an object; everything else is passed on."""

    def __init__(self, target: object, clock: Callable[[], float], *names: str) -> None:
        self._target = target
        self._clock = clock
        self._names = names
        self.elapsed = dict.fromkeys(names, 0.0)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._names:
            return found

        def timed(*args: Any) -> Any:
            start = self._clock()
            result = found(*args)
            self.elapsed[name] += self._clock() - start
            return result

        return timed

    def take(self, name: str) -> float:
        """What a method has taken since it was last asked, in milliseconds."""
        elapsed, self.elapsed[name] = self.elapsed[name], 0.0
        return 1e3 * elapsed


class StepProfiler:
    """Times the decode steps of one engine, part by part."""

    def __init__(self, engine: LLMEngine, clock: Callable[[], float] = time.perf_counter) -> None:
        self._engine = engine
        self._clock = clock
        # They pass on what is not timed.
        self._runner = Timed(engine.runner, clock, "run")
        self._scheduler = Timed(engine.scheduler, clock, "schedule", "update")
        self._sampler = Timed(engine.sampler, clock, "sample")
        engine.runner = cast(Runner, self._runner)
        engine.scheduler = cast(Scheduler, self._scheduler)
        engine.sampler = cast(Sampler, self._sampler)
        self._rng = np.random.default_rng(0)
        self._seqs: list[Sequence] = []

    def measure(self, num_seqs: int, context: int, num_steps: int, sampling: str) -> StepTimes:
        """Medians over `num_steps` steps in which `num_seqs` sequences advance.

        Raises:
            BenchmarkFailed: As `begin`.
        """
        self.begin(num_seqs, context, num_steps, sampling)
        steps = self.steps(num_steps)
        self.end()
        step_ms = median(step.step_ms for step in steps)
        own_ms = median(step.own_ms for step in steps)
        return StepTimes(
            num_seqs=num_seqs,
            sampling=sampling,
            step_ms=step_ms,
            own_ms=own_ms,
            schedule_ms=median(step.schedule_ms for step in steps),
            sample_ms=median(step.sample_ms for step in steps),
            update_ms=median(step.update_ms for step in steps),
            own_share=own_ms / step_ms if step_ms else 0.0,
        )

    def begin(self, num_seqs: int, context: int, num_steps: int, sampling: str) -> Rows[Sequence]:
        """Bring sequences to where each step gives each a token; room for `num_steps` is left.

        Raises:
            BenchmarkFailed: The engine runs fewer sequences, or its context is too short.
        """
        engine = self._engine
        if num_seqs > engine.max_num_seqs or context + num_steps + 4 > engine.max_context:
            raise BenchmarkFailed(
                f"{num_seqs} sequences of {context + num_steps + 4} tokens were asked for, but the "
                f"engine runs {engine.max_num_seqs} of {engine.max_context}"
            )
        self._seqs = [self._sequence(seq_id, context, sampling) for seq_id in range(num_seqs)]
        for seq in self._seqs:
            engine.add(seq)
        while len(engine.scheduler.running) < num_seqs:
            engine.step()
        return self._seqs

    def steps(self, num_steps: int) -> list[StepParts]:
        """Time some steps of the sequences that have begun."""
        self._parts(0.0)  # what there was before
        found = []
        for _ in range(num_steps):
            start = self._clock()
            self._engine.step()
            found.append(self._parts(1e3 * (self._clock() - start)))
        return found

    def end(self) -> None:
        """Give up the sequences that have begun."""
        for seq in self._seqs:
            self._engine.abort(seq.seq_id)
        self._seqs = []

    def _parts(self, step_ms: float) -> StepParts:
        scheduler = self._scheduler
        return StepParts(
            step_ms,
            self._runner.take("run"),
            scheduler.take("schedule"),
            self._sampler.take("sample"),
            scheduler.take("update"),
        )

    def _sequence(self, seq_id: int, context: int, sampling: str) -> Sequence:
        prompt = self._rng.integers(self._engine.vocab_size, size=context).tolist()
        room = self._engine.max_context - context
        params = SamplingParams(
            max_tokens=room, ignore_eos=True, seed=seq_id, **SAMPLINGS[sampling]  # type: ignore[arg-type]
        )  # fmt: skip
        return Sequence.from_prompt(seq_id, prompt, params)


def steps_table(rows: list[StepTimes]) -> Table:
    """A line for each number of sequences and sampling."""
    table = Table(
        title="A decode step by part, medians in ms", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("sequences", justify="right")
    table.add_column("sampling")
    for name in ("step", "our own", "share", "schedule", "sample", "update"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.num_seqs),
            row.sampling,
            f"{row.step_ms:.2f}",
            f"{row.own_ms:.3f}",
            f"{row.own_share:.1%}",
            f"{row.schedule_ms:.3f}",
            f"{row.sample_ms:.3f}",
            f"{row.update_ms:.3f}",
        )
    return table
