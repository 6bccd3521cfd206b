"""The step profile on a runner whose clock is the test's: what it attributes to whom."""

from __future__ import annotations

import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.step_profile import SAMPLINGS, StepProfiler, steps_table
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from tests.engines.fakes import HashRunner


class Clock:
    """Every look at it takes 1 ms, and each run of the model 50 ms more."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class SlowRunner(HashRunner):
    clock: Clock

    def run(self, batch):
        self.clock.now += 0.050
        return super().run(batch)


@pytest.fixture
def profiler() -> StepProfiler:
    runner, clock = SlowRunner(), Clock()
    runner.clock = clock
    config = SchedulerConfig(max_num_seqs=3, max_context=runner.max_context)
    return StepProfiler(LLMEngine(runner, config, 10_000, "test"), clock)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_runtime_s_time_is_not_our_own(profiler, sampling):
    times = profiler.measure(num_seqs=3, context=8, num_steps=5, sampling=sampling)
    assert times.step_ms == pytest.approx(59)
    assert times.own_ms == pytest.approx(8)
    assert times.own_share == pytest.approx(8 / 59)
    assert times.schedule_ms == times.sample_ms == times.update_ms == pytest.approx(1)


def test_an_engine_is_measured_several_times(profiler):
    first, again = (profiler.measure(1, 8, 5, "greedy").own_ms for _ in range(2))
    assert first == pytest.approx(again)


def test_what_does_not_fit_is_refused_with_both_sizes(profiler):
    with pytest.raises(BenchmarkFailed, match="runs 3 of 64"):
        profiler.measure(4, 8, 5, "greedy")
    with pytest.raises(BenchmarkFailed, match="of 69 tokens"):
        profiler.measure(1, 60, 5, "greedy")


def test_the_table_has_a_line_a_measurement(profiler):
    rows = [profiler.measure(2, 8, 5, sampling) for sampling in SAMPLINGS]
    assert steps_table(rows).row_count == len(SAMPLINGS)
