"""Draws of many rows at once are the draws of each row by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.llm.draw import draw
from engines.llm.draw_rows import draw_rows
from engines.llm.sampling_params import SamplingParams

K, VOCABULARY = 32, 500
samplings = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.1, 0.7, 1.0, 2.0]),
    top_k=st.integers(1, K),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
)


class Fixed:
    """A generator that gives one number."""

    def __init__(self, position: float) -> None:
        self._position = position

    def random(self) -> float:
        return self._position


def likeliest(rows):
    order = np.argsort(-rows, axis=1, kind="stable")[:, :K]
    return order, np.take_along_axis(rows, order, 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(samplings, min_size=1, max_size=6), st.integers(0, 10_000))
def test_each_row_gets_the_token_that_it_gets_alone(kinds, seed):
    rng = np.random.default_rng(seed)
    rows = (3 * rng.standard_normal((len(kinds), VOCABULARY))).astype(np.float32)
    positions = rng.random(len(kinds))
    ids, values = likeliest(rows)
    drawn = draw_rows(ids, values, kinds, positions)
    for row, kind in enumerate(kinds):
        alone = draw_rows(ids[row : row + 1], values[row : row + 1], [kind], positions[row:][:1])
        assert drawn[row] == alone[0]
        assert drawn[row] == draw(rows[row], kind, Fixed(positions[row]))


def test_draws_follow_the_probabilities():
    rng = np.random.default_rng(0)
    logits = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))
    ids, count = np.array([[7, 3, 9, 1]]), 20_000
    kind = SamplingParams(temperature=1.0, top_k=3, top_p=1.0)
    drawn = draw_rows(
        np.repeat(ids, count, 0), np.repeat(logits, count, 0), [kind] * count, rng.random(count)
    )
    shares = [float((drawn == token).mean()) for token in (7, 3, 9, 1)]
    assert np.allclose(shares, [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0], atol=0.015)


def test_the_likeliest_stays_whatever_is_cut():
    kind = SamplingParams(temperature=1.0, top_k=4, top_p=0.01, min_p=0.99)
    ids, logits = np.array([[5, 6, 7, 8]]), np.array([[2.0, 1.9, 1.8, 0.0]], np.float32)
    for position in (0.0, 0.5, 0.999999):
        assert draw_rows(ids, logits, [kind], np.array([position])).tolist() == [5]
