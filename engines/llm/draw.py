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
        total = float(weights[order].sum(dtype=np.float64))
    else:
        total = float(_block_sums(weights).sum())
        order = _nucleus_candidates(weights, sampling.top_p * total)
    if sampling.top_p < 1:
        cumulative = np.cumsum(weights[order], dtype=np.float64)
        num_kept = int(np.searchsorted(cumulative, sampling.top_p * total)) + 1
        order = order[:num_kept]
    if sampling.min_p:
        order = order[weights[order] >= sampling.min_p]
    return order


def _nucleus_candidates(weights: FloatArray, mass: float) -> IntArray:
    """Enough of the likeliest tokens to hold `mass`, in an order that can be cut where it does."""
    order = likeliest(weights, _FIRST_CUT)
    if weights[order].sum(dtype=np.float64) >= mass:
        return order
    # A flat row. Positive floats are ordered as their bits are, so their upper half is a bin; only
    # the bin in which the mass is reached has to be sorted.
    bins = weights.view(np.int32) >> 16
    above = np.cumsum(np.bincount(bins, weights)[::-1])
    last = max(len(above) - 1 - int(np.searchsorted(above, mass)), 0)
    whole, cut = np.flatnonzero(bins > last), np.flatnonzero(bins == last)
    return np.concatenate([whole, cut[np.lexsort((cut, -weights[cut]))]])


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
