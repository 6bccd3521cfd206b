"""Batching of texts: whatever else is read, each gets what it gets alone, and all are answered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import ContextLengthExceeded, InvalidRequest
from engines.pooling.engine import EmbeddingEngine, RerankEngine
from engines.pooling.job import PoolingJob
from engines.pooling.scheduler import PoolingSchedulerConfig

VOCABULARY, MAX_CONTEXT, WIDTH = 50, 100, 4
CONFIG = PoolingSchedulerConfig(max_rows=3, max_run_tokens=16, max_padding=0.25)


class HashingRunner:
    """A row is a hash of what the caches hold, so that lost, mixed or padded tokens show."""

    max_context = MAX_CONTEXT

    def __init__(self):
        self.chunked = []
        self.num_released = 0
        self.shapes = []

    def run(self, batch):
        ids, lengths = batch.input_ids, batch.lengths
        rows, size = ids.shape
        assert rows >= 1
        assert size == lengths.max()
        assert ids.size <= CONFIG.max_run_tokens
        self.shapes.append((rows, size, int(lengths.sum())))
        if batch.is_chunk:
            assert rows == 1
            assert size >= 2, "a chunk of one token meets the kernels of decode"
            assert batch.num_past <= len(self.chunked)
            self.chunked = self.chunked[: batch.num_past] + ids[0].tolist()
            return np.stack([row_of(self.chunked)])
        assert batch.num_past == 0
        return np.stack([row_of(ids[i, : lengths[i]].tolist()) for i in range(rows)])

    def release(self):
        self.chunked = []
        self.num_released += 1

    def close(self):
        pass


def row_of(token_ids):
    return np.random.default_rng(token_ids).standard_normal(WIDTH).astype(np.float32)


def make_engine(engine_type=EmbeddingEngine):
    runner = HashingRunner()
    return engine_type(runner, CONFIG, VOCABULARY, device="cpu"), runner


def expected(token_ids, dimensions=None):
    row = row_of(token_ids)[:dimensions].astype(np.float64)
    return row / np.linalg.norm(row)


TEXTS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=MAX_CONTEXT)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), TEXTS, st.sampled_from([None, 1, 3])),
        st.tuples(st.just("abort"), st.integers(0, 30), st.none()),
        st.tuples(st.just("step"), st.integers(1, 4), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_every_text_gets_what_it_gets_alone_unless_it_is_given_up(events):
    engine, runner = make_engine()
    texts, found, aborted = [], {}, set()

    def step():
        for output in engine.step():
            assert output.job_id not in found
            assert output.job_id not in aborted
            found[output.job_id] = output.values

    for kind, value, dimensions in events:
        if kind == "add":
            engine.add(PoolingJob(len(texts), value, dimensions))
            texts.append((value, dimensions))
        elif kind == "abort":
            engine.abort(value)
            if value < len(texts) and value not in found:
                aborted.add(value)
        else:
            for _ in range(value):
                step()
    num_steps = 0
    while engine.has_work:
        step()
        num_steps += 1
        assert num_steps < 1000, "a text is starved"
    assert found.keys() | aborted == set(range(len(texts)))
    for job_id, values in found.items():
        text, dimensions = texts[job_id]
        np.testing.assert_allclose(values, expected(text, dimensions), atol=1e-6)
    assert engine.step() == []
    if found:
        assert runner.chunked == [], "a cache is kept for nobody"


def test_short_texts_share_a_run_and_are_padded_little():
    engine, runner = make_engine()
    for index, length in enumerate([5, 1, 5, 4, 5, 1]):
        engine.add(PoolingJob(index, [1] * length))
    order = []
    while engine.has_work:
        order.append([output.job_id for output in engine.step()])
    assert order == [[0, 2, 4], [1, 5], [3]]
    assert all(rows * size - used <= 0.25 * rows * size for rows, size, used in runner.shapes)


def test_a_long_text_and_short_ones_take_turns():
    engine, _ = make_engine()
    engine.add(PoolingJob(0, [*list(range(40)), 1]))  # chunks of 16, 16 and 9
    for index in range(1, 10):
        engine.add(PoolingJob(index, [1] * 5))
    done = []
    while engine.has_work:
        done.append([output.job_id for output in engine.step()])
    assert done == [[1, 2, 3], [], [4, 5, 6], [], [7, 8, 9], [0]]


def test_bad_texts_are_refused_and_hurt_no_others():
    engine, _ = make_engine()
    engine.add(PoolingJob(0, [1, 2]))
    with pytest.raises(ContextLengthExceeded, match="101 tokens, but this model reads 100"):
        engine.add(PoolingJob(1, [1] * 101))
    with pytest.raises(InvalidRequest, match="token id 50"):
        engine.add(PoolingJob(1, [1, 50]))
    with pytest.raises(InvalidRequest, match="empty"):
        engine.add(PoolingJob(1, []))
    with pytest.raises(ValueError, match="job_id 0"):
        engine.add(PoolingJob(0, [1]))
    (output,) = engine.step()
    np.testing.assert_allclose(output.values, expected([1, 2]), atol=1e-6)
    assert engine.stats().prompt_tokens == 2


def test_a_score_is_the_share_of_yes_between_two_logits():
    engine, _ = make_engine(RerankEngine)
    engine.add(PoolingJob(0, [3, 4]))
    (output,) = engine.step()
    no, yes = np.exp(row_of([3, 4])[:2].astype(np.float64))
    np.testing.assert_allclose(output.values, [yes / (no + yes)], atol=1e-6)
    assert engine._pool(PoolingJob(1, [1]), np.array([1e4, -1e4], np.float32))[0] == 0
    assert engine._pool(PoolingJob(1, [1]), np.array([-1e4, 1e4], np.float32))[0] == 1


def test_a_state_of_zeros_is_no_reason_to_fail():
    engine, _ = make_engine()
    values = engine._pool(PoolingJob(0, [1]), np.zeros(WIDTH, np.float32))
    assert values.tolist() == [0] * WIDTH
