"""Waits on a runner whose clock is the test's: a decode step takes 10 ms, a prompt 1 ms a token."""

from __future__ import annotations

import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.waits import WaitsConfig, WaitsMeter, WaitsReport, waits_table
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from tests.engines.fakes import HashRunner


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowRunner(HashRunner):
    clock: Clock

    def run(self, batch):
        size = batch.input_ids.shape[1]
        self.clock.now += 0.010 if size == 1 else 0.001 * size
        return super().run(batch)


@pytest.fixture
def meter() -> WaitsMeter:
    runner, clock = SlowRunner(), Clock()
    runner.clock = clock
    config = SchedulerConfig(
        max_num_seqs=3, max_context=runner.max_context, prefill_chunk=32, prefill_chunk_streaming=16
    )
    return WaitsMeter(LLMEngine(runner, config, 10_000, "test"), clock)


def test_the_longest_gap_is_a_chunk_and_a_step(meter):
    step, gap, prompt = meter.gap(streams=2, context=4, prompt_tokens=40)
    assert step == pytest.approx(0.010)
    assert gap == pytest.approx(0.016 + 0.010)
    assert prompt >= 0.040 + 2 * 0.010


def test_a_known_prefix_is_not_computed_again(meter):
    cold, cached = meter.first_token(num_tokens=40, new_tokens=10)
    assert cold == pytest.approx(0.040)
    assert cached == pytest.approx(0.010)


def test_what_does_not_fit_is_refused_with_both_sizes(meter):
    with pytest.raises(BenchmarkFailed, match="runs 3 sequences of 64"):
        meter.gap(streams=3, context=4, prompt_tokens=40)


def test_a_prompt_that_differs_everywhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match="new_tokens is 1024"):
        WaitsConfig(engine_dir=tmp_path, new_tokens=1024)


def test_the_table_names_gaps_in_steps_and_the_share_of_the_cold_time():
    report = WaitsReport(
        engine="x", precision="int8", machine={}, streams=7, prompt_tokens=2048,
        prefix_tokens=1024, new_tokens=16, decode_step_ms=20, longest_gap_ms=70, prompt_ms=900,
        cold_ms=800, cached_ms=20,
    )  # fmt: skip
    cells = [cell for column in waits_table(report).columns for cell in column.cells]
    assert "70.0 ms (3.5 decode steps)" in cells
    assert "20.0 ms (1/40)" in cells
