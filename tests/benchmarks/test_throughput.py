import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.throughput import ThroughputMeter
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from tests.engines.fakes import HashRunner


class TimedRunner(HashRunner):
    """Takes one second a run and half a second a token by its own clock."""

    now = 0.0

    def run(self, batch):
        self.now += 1.0 + 0.5 * batch.num_tokens
        return super().run(batch)


@pytest.fixture
def runner():
    return TimedRunner(num_slots=6, max_context=256)


@pytest.fixture
def engine(runner):
    config = SchedulerConfig(
        max_num_seqs=3,
        max_context=256,
        prefill_chunk=64,
        prefill_chunk_streaming=32,
        eos_token_ids=frozenset({5}),
    )
    return LLMEngine(runner, config, 10**6, device="cpu")


@pytest.fixture
def meter(engine, runner):
    return ThroughputMeter(engine, clock=lambda: runner.now)


def test_prefill_is_the_prompt_in_the_engines_chunks(meter, runner):
    assert meter.prefill(160) == pytest.approx(160 / (3 * 1.0 + 160 * 0.5))
    assert [batch.num_tokens for batch in runner.batches] == [64, 64, 32]


def test_prompts_are_never_reused(meter, runner):
    meter.prefill(64)
    meter.prefill(64)
    assert [batch.num_tokens for batch in runner.batches] == [64, 64]


@pytest.mark.parametrize("num_seqs", [1, 2, 3])
def test_decode_times_only_steps_in_which_all_sequences_advance(meter, runner, num_seqs):
    speed = meter.decode(num_seqs, context=40, num_tokens=10)
    assert speed == pytest.approx(num_seqs / (1.0 + 0.5 * num_seqs))
    timed = [batch for batch in runner.batches if batch.input_ids.shape == (num_seqs, 1)]
    assert len(timed) >= 10


def test_nothing_is_left_running(meter, engine):
    meter.decode(3, context=40, num_tokens=10)
    assert not engine.has_work
    meter.decode(3, context=40, num_tokens=10)


def test_more_sequences_than_the_engine_runs_are_refused(meter):
    with pytest.raises(BenchmarkFailed, match="4 sequences were asked for, but the engine runs 3"):
        meter.decode(4, context=10, num_tokens=5)


def test_a_context_that_does_not_fit_is_refused(meter):
    with pytest.raises(BenchmarkFailed, match="the engine's context is 256 tokens"):
        meter.prefill(256)
    with pytest.raises(BenchmarkFailed, match="200 prompt and 101 output tokens"):
        meter.decode(1, context=200, num_tokens=100)
