"""The overhead of grammars on a runner whose clock is the test's."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from benchmarks.grammar_overhead import (
    SCHEMAS,
    GrammarConfig,
    GrammarReport,
    grammar_table,
    measure_pairs,
    median_interval,
    run_grammar,
)
from benchmarks.step_profile import StepProfiler
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from tests.benchmarks.test_step_profile import Clock, SlowRunner


class SlowState:
    """A constraint that takes 5 ms a token."""

    def __init__(self, clock):
        self.clock = clock

    def mask(self):
        return None

    def accept(self, token_id):
        self.clock.now += 0.005


class SlowCompiler:
    def __init__(self, clock):
        self.clock = clock

    def new_state(self, spec):
        return SlowState(self.clock)


def test_pairs_tell_what_the_constraint_costs():
    runner, clock = SlowRunner(), Clock()
    runner.clock = clock
    engine = LLMEngine(
        runner, SchedulerConfig(max_num_seqs=3, max_context=runner.max_context), 10_000, "test"
    )
    config = GrammarConfig(engine_dir=Path(), num_seqs=2, context=8, pairs=3)
    times = measure_pairs(
        StepProfiler(engine, clock), config, "text", "greedy", SlowCompiler(clock)
    )
    engine.close()
    assert times.free_ms == pytest.approx(59)
    assert times.constrained_ms == pytest.approx(69)
    assert (times.lowest, times.overhead, times.highest) == pytest.approx((10 / 59,) * 3)
    assert times.sampling_ms == pytest.approx(10)
    assert times.masks_ms >= 0
    assert times.own_share == pytest.approx((10 + times.masks_ms) / 59)
    report = GrammarReport(
        engine="x", precision="int8", machine={}, num_seqs=2, context=8, rows=[times]
    )
    assert grammar_table(report).row_count == 1


def test_the_interval_of_noise_is_wide_and_holds_what_is_true():
    rng = np.random.default_rng(1)
    lowest, highest = median_interval(rng.normal(0.02, 0.1, 60))
    assert lowest < 0.02 < highest
    assert 0.03 < highest - lowest < 0.12


def test_the_schemas_are_such_as_a_real_engine_follows(demo_engine_dir, tmp_path):
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    target = tmp_path / "report.json"
    config = GrammarConfig(
        engine_dir=demo_engine_dir, num_seqs=2, context=8, pairs=1, json=str(target)
    )
    assert run_grammar(config) == 0
    rows = json.loads(target.read_text())["rows"]
    assert {(row["schema"], row["sampling"]) for row in rows} == {
        (schema, sampling)
        for schema in SCHEMAS
        for sampling in ("greedy", "top-k 20, top-p 0.8", "full distribution")
    }
    assert all(row["masks_ms"] > 0 for row in rows)
