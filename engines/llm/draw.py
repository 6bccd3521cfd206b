"""Draw one token from a row of logits by temperature, top-k, top-p and min-p.

Probabilities stay unnormalised weights relative to the likeliest token, and the vocabulary is
summed in blocks, so that the full distribution costs two passes and no sort.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.llm.candidates import likeliest
from engines.llm.runner import FloatArray, IntArray
from engines.llm.sampling_params import SamplingParams

_BLOCK = 512
_FIRST_CUT = 256  # candidates looked at first for top-p


def draw(
    logits: FloatArray,
    sampling: SamplingParams,
    generator: np.random.Generator,
) -> int:
    """Index into `logits` of the token drawn; takes one number from the generator.

    Args:
        logits: The whole row, or what of it may be drawn, in the order of the ids: ties go to the
            first, so that the result does not depend on how candidates were found. [V]
        sampling: Temperature above 0.
        generator: The sequence's own.
    """
    weights = logits - logits.max()
    weights *= np.float32(1 / sampling.temperature)
    np.exp(weights, out=weights)  # [V], the largest is 1
    position = generator.random()
    kept = _kept(weights, sampling)
    if kept is None:
        return _locate(weights, position)
    return int(kept[_locate(weights[kept], position)])


def _kept(weights: FloatArray, sampling: SamplingParams) -> IntArray | None:
    """Indices that survive the cuts; None keeps all in their order."""
    if sampling.top_k == 0 and sampling.top_p == 1:
        return np.flatnonzero(weights >= sampling.min_p) if sampling.min_p else None
    if sampling.top_k:
        order = likeliest(weights, sampling.top_k)
        if sampling.top_p < 1:
            total = float(weights[order].sum(dtype=np.float64))
            order = _until(weights, order, sampling.top_p * total)
    else:
        order = _nucleus(weights, sampling.top_p * float(_block_sums(weights).sum()))
    if sampling.min_p:
        order = order[weights[order] >= sampling.min_p]
    return order


def _nucleus(weights: FloatArray, mass: float) -> IntArray:
    """The fewest of the likeliest tokens that hold `mass`."""
    order = likeliest(weights, _FIRST_CUT)
    if weights[order].sum(dtype=np.float64) >= mass:
        return _until(weights, order, mass)
    # A flat row. Positive floats are ordered as their bits are, so their upper half is a bin; only
    # the bin in which the mass is reached has to be sorted.
    bins = weights.view(np.int32) >> 16
    above = np.cumsum(np.bincount(bins, weights)[::-1])
    position = min(int(np.searchsorted(above, mass)), len(above) - 1)
    last = len(above) - 1 - position
    whole, cut = np.flatnonzero(bins > last), np.flatnonzero(bins == last)
    left = mass - (float(above[position - 1]) if position else 0.0)
    return np.concatenate([whole, _until(weights, cut[np.lexsort((cut, -weights[cut]))], left)])


def _until(weights: FloatArray, order: IntArray, mass: float) -> IntArray:
    """The head of `order` up to and with the token that brings the sum to `mass`."""
    cumulative = np.cumsum(weights[order], dtype=np.float64)
    return order[: int(np.searchsorted(cumulative, mass)) + 1]


def _locate(weights: FloatArray, position: float) -> int:
    """The index at which the running sum of the weights passes `position` (0 to 1) of the total."""
    sums = np.cumsum(_block_sums(weights))
    target = position * sums[-1]
    block = min(int(np.searchsorted(sums, target, side="right")), len(sums) - 1)
    start = block * _BLOCK
    before = sums[block - 1] if block else 0.0
    within = np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
    return start + min(int(np.searchsorted(within, target - before, side="right")), len(within) - 1)


def _block_sums(weights: FloatArray) -> NDArray[np.float64]:
    """Sums over blocks of the row, in float64. [ceil(V / block)]"""
    num_blocks = weights.size // _BLOCK
    whole = weights[: num_blocks * _BLOCK].reshape(num_blocks, _BLOCK).sum(axis=1)
    tail = weights[num_blocks * _BLOCK :].sum(keepdims=True)
    sums = whole if num_blocks * _BLOCK == weights.size else np.concatenate([whole, tail])
    return sums.astype(np.float64)
