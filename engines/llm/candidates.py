"""The likeliest tokens of a row without sorting, or copying, the whole vocabulary."""

from __future__ import annotations

import numpy as np

from engines.llm.runner import FloatArray, IntArray

_BLOCK = 512  # columns whose maximum is taken together


def superset(logits: FloatArray, k: int) -> IntArray:
    """Ids of at least the `k` largest entries, ascending; ties with the k-th are all kept.

    The k-th largest of the block maxima is a bound that at least k entries reach: one pass over
    the row and a partition of a few hundred numbers. `logits` is [V], `k` at least 1.
    """
    if k >= logits.size:
        return np.arange(logits.size)
    num_blocks, tail = divmod(logits.size, _BLOCK)
    if num_blocks < k:
        bound = np.partition(logits, logits.size - k)[logits.size - k]
        return np.flatnonzero(logits >= bound)
    maxima = logits[: num_blocks * _BLOCK].reshape(num_blocks, _BLOCK).max(axis=1)
    if tail:
        maxima = np.append(maxima, logits[num_blocks * _BLOCK :].max())
    bound = np.partition(maxima, maxima.size - k)[maxima.size - k]
    return np.flatnonzero(logits >= bound)


def likeliest(logits: FloatArray, k: int) -> IntArray:
    """Ids of the `k` largest entries, largest first, ties by id. [min(k, V)]"""
    found = superset(logits, k)
    order = np.lexsort((found, -logits[found]))
    return found[order[:k]]
