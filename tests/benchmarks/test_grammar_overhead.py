"""The overhead of grammars on a runner whose clock is the test's."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from benchmarks.grammar_overhead import (
    SCHEMA,
    GrammarConfig,
    GrammarReport,
    grammar_table,
    measure_pairs,
    open_compiler,
    run_grammar,
)
from benchmarks.step_profile import StepProfiler
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from engines.store import find_engines
from server.text.grammar import GrammarSpec
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
    config = GrammarConfig(engine_dir=Path(), num_seqs=2, context=8, steps=4, rounds=3)
    spec = GrammarSpec.json_object("schema")
    times = measure_pairs(StepProfiler(engine, clock), config, "greedy", SlowCompiler(clock), spec)
    assert times.free_ms == pytest.approx(59)
    assert times.constrained_ms == pytest.approx(69)
    assert times.overhead == pytest.approx(10 / 59)
    assert len(times.overheads) == 3
    report = GrammarReport(
        engine="x", precision="int8", machine={}, num_seqs=2, context=8, rows=[times]
    )
    assert grammar_table(report).row_count == 1


def test_the_schema_is_one_that_a_real_engine_follows(demo_engine_dir, tmp_path):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    (folder,) = find_engines(demo_engine_dir)
    open_compiler(folder).compile(GrammarSpec.json_schema(SCHEMA, "schema"))
    target = tmp_path / "report.json"
    config = GrammarConfig(
        engine_dir=demo_engine_dir, num_seqs=2, context=8, steps=2, rounds=1, json=str(target)
    )
    assert run_grammar(config) == 0
    assert "overheads" in target.read_text()
