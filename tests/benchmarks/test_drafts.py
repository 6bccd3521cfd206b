"""Drafts on a model that repeats itself and on one that does not, and the whole command."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.drafts import TEXTS, DraftsReport, TextFigures, table, tokens_per_s
from benchmarks.errors import BenchmarkFailed
from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.scheduler import SchedulerConfig
from tests.engines.fakes import HashRunner


def test_answers_of_one_token_cannot_be_timed():
    runner = HashRunner()
    config = SchedulerConfig(max_num_seqs=1, max_context=runner.max_context)
    engine = LLMEngine(runner, config, 10_000, "test")
    assert tokens_per_s(engine, [[1, 2], [3]], SamplingParams(max_tokens=3, ignore_eos=True)) > 0
    with pytest.raises(BenchmarkFailed, match="ended with its first token"):
        tokens_per_s(engine, [[1, 2]], SamplingParams(max_tokens=1))


def test_gains_are_those_of_each_round():
    figures = TextFigures(
        text="free",
        without=[100.0, 200.0],
        with_drafts=[150.0, 200.0],
        drafted_tokens=8,
        accepted_tokens=2,
    )
    report = DraftsReport(
        engine="a", machine={}, max_draft_tokens=4, texts=[figures], others_share=None
    )
    (row,) = table(report).rows
    assert row == ["free", "150", "175", "1.25 (1.00 to 1.50)", "8", "25%"]


def test_the_command_measures_both_kinds_of_text(tiny_engine_dir, tmp_path):
    report = tmp_path / "drafts.json"
    load = ("--answer-tokens", "8", "--rounds", "1", "--threads", "1", "--max-draft-tokens", "4")
    with pytest.raises(SystemExit) as end:
        main(["drafts", "--engine", str(tiny_engine_dir), *load, "--json", str(report)])
    assert end.value.code == 0
    texts = json.loads(report.read_text())["texts"]
    assert [figures["text"] for figures in texts] == list(TEXTS)
    assert all(figures["without"][0] > 0 and figures["with_drafts"][0] > 0 for figures in texts)
