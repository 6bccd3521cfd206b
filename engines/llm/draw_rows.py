"""Draw a token for each of many rows at once, where their likeliest tokens are at hand in order."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import numpy as np
from numpy.typing import NDArray

from engines.llm.runner import FloatArray, IntArray
from engines.llm.sampling_params import SamplingParams


def draw_rows(
    token_ids: IntArray,
    logits: FloatArray,
    samplings: Rows[SamplingParams],
    positions: NDArray[np.float64],
) -> IntArray:
    """The token drawn from each row, by temperature, top-k, top-p and min-p as `draw` does.

    Sums run along each row by itself, from the likeliest token on, so that a row's draw does not
    depend on the others.

    Args:
        token_ids: The likeliest tokens of each row, the likeliest first. [n, K]
        logits: Theirs. [n, K]
        samplings: Each with a temperature above 0 and a `top_k` from 1 to K. [n]
        positions: A number from 0 to 1 from each sequence's generator. [n]
    """
    temperatures = np.array([sampling.temperature for sampling in samplings], np.float32)
    top_k = np.array([sampling.top_k for sampling in samplings])
    top_p = np.array([sampling.top_p for sampling in samplings])
    min_p = np.array([sampling.min_p for sampling in samplings], np.float32)
    width = int(top_k.max())
    weights = logits[:, :width] - logits[:, :1]  # [n, width], the largest is 0
    weights *= (1 / temperatures)[:, None]
    np.exp(weights, out=weights)
    weights[np.arange(width) >= top_k[:, None]] = 0
    sums = np.cumsum(weights, axis=1, dtype=np.float64)
    mass = top_p * sums[:, -1]
    # A token stays if those before it do not reach the mass; the first always does.
    weights[:, 1:][(sums[:, :-1] >= mass[:, None]) & (top_p < 1)[:, None]] = 0
    weights[weights < min_p[:, None]] = 0
    sums = np.cumsum(weights, axis=1, dtype=np.float64)
    targets = positions * sums[:, -1]
    passed = sums > targets[:, None]
    chosen = np.where(passed.any(axis=1), passed.argmax(axis=1), (weights > 0).sum(axis=1) - 1)
    drawn: IntArray = token_ids[np.arange(len(chosen)), chosen]
    return drawn
