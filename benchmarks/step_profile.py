"""Where the time of a decode step goes: the runtime's, and our own part by part."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, cast

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from engines.llm.constraint import TokenConstraint
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

    def measure(
        self,
        num_seqs: int,
        context: int,
        num_steps: int,
        sampling: str,
        new_constraint: Callable[[], TokenConstraint] | None = None,
    ) -> StepTimes:
        """Medians over `num_steps` steps in which `num_seqs` sequences advance.

        Each sequence gets a constraint of its own where `new_constraint` makes one.

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
            constraint = None if new_constraint is None else new_constraint()
            engine.add(self._sequence(seq_id, context, sampling, constraint))
        while len(engine.scheduler.running) < num_seqs:
            engine.step()
        self._parts()  # of the steps before
        steps, parts = [], []
        for _ in range(num_steps):
            start = self._clock()
            engine.step()
            steps.append(1e3 * (self._clock() - start))
            parts.append(self._parts())
        for seq_id in range(num_seqs):
            engine.abort(seq_id)
        step_ms = median(steps)
        own_ms = median(s - runtime for s, (runtime, *_) in zip(steps, parts, strict=True))
        return StepTimes(
            num_seqs=num_seqs,
            sampling=sampling,
            step_ms=step_ms,
            own_ms=own_ms,
            schedule_ms=median(part[1] for part in parts),
            sample_ms=median(part[2] for part in parts),
            update_ms=median(part[3] for part in parts),
            own_share=own_ms / step_ms if step_ms else 0.0,
        )

    def _parts(self) -> tuple[float, float, float, float]:
        """Milliseconds of the runtime, of scheduling, sampling and updating, each since asked."""
        scheduler = self._scheduler
        schedule, update = scheduler.take("schedule"), scheduler.take("update")
        return self._runner.take("run"), schedule, self._sampler.take("sample"), update

    def _sequence(
        self, seq_id: int, context: int, sampling: str, constraint: TokenConstraint | None
    ) -> Sequence:
        prompt = self._rng.integers(self._engine.vocab_size, size=context).tolist()
        room = self._engine.max_context - context
        params = SamplingParams(
            max_tokens=room, ignore_eos=True, seed=seq_id, **SAMPLINGS[sampling]  # type: ignore[arg-type]
        )  # fmt: skip
        return Sequence.from_prompt(seq_id, prompt, params, constraint)


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
