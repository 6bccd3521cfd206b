"""Logits in host memory, read where the runtime wrote them, and as little of them as will do.

A graph may give the maximum of every block of columns beside the logits. Then the likeliest token
of a row, or its k likeliest, are found in the maxima and the few blocks that they point to: 8 rows
of Qwen's vocabulary are 4.9 MB, of which that reads some 100 KB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.llm.candidates import superset
from engines.llm.runner import FloatArray, IntArray

_MAX_CANDIDATES = 256  # beyond, so many blocks are looked into that the row is read as quickly
_BLOCKS_PER_CANDIDATE = 4  # the fewer blocks there are, the less their maxima say


@dataclass(frozen=True, slots=True)
class HostLogits:
    """Implements `RunOutput` and `OrderedCandidates`.

    Row i of the output is `values[positions[i]]`: a decode step computes idle rows too. Columns
    from `num_tokens` on pad the head, and are never looked at.
    """

    values: FloatArray  # [n, vocab_size], contiguous
    num_tokens: int
    positions: IntArray  # [R]
    maxima: FloatArray | None = None  # [n, B], over blocks of vocab_size / B columns

    @property
    def num_candidates(self) -> int:
        if self.maxima is None:
            return 0
        num_blocks = self.num_tokens // self._block_size
        return min(num_blocks // _BLOCKS_PER_CANDIDATE, _MAX_CANDIDATES)

    def argmax(self, rows: IntArray) -> IntArray:
        places = self.positions[rows]
        if self.maxima is None or len(places) == 1:  # one row is read sooner than looked up
            found = (self.values[place, : self.num_tokens].argmax() for place in places)
            return np.fromiter(found, np.int64, len(places))
        blocks = self._maxima_of(places).argmax(axis=1)
        columns: IntArray = self._blocks_at(places, blocks).argmax(axis=1)
        columns += blocks * self._block_size
        return columns

    def ordered_candidates(self, rows: IntArray, k: int) -> tuple[IntArray, FloatArray]:
        places = self.positions[rows]
        maxima = self._maxima_of(places)
        # At least k blocks reach the k-th largest maximum, and so do k logits.
        bounds = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, -k, None]  # [n, 1]
        owners, blocks = np.nonzero(maxima >= bounds)
        values = self._blocks_at(places[owners], blocks)
        hits, columns = np.nonzero(values >= bounds[owners])
        owners, found = owners[hits], values[hits, columns]
        order = np.lexsort((-found, owners))  # stable: ties stay in the order of their ids
        starts = np.searchsorted(owners, np.arange(len(places)))
        best = order[starts[:, None] + np.arange(k)]
        return blocks[hits[best]] * self._block_size + columns[best], found[best]

    def candidates(self, row: int, k: int) -> tuple[IntArray, FloatArray]:
        if k <= self.num_candidates:
            ordered = self.ordered_candidates(np.array([row]), k)
            order = ordered[0][0].argsort()
            return ordered[0][0, order], ordered[1][0, order]
        values = self.logits(row)
        token_ids = superset(values, k)
        return token_ids, values[token_ids]

    def logits(self, row: int) -> FloatArray:
        values: FloatArray = self.values[self.positions[row], : self.num_tokens]
        return values

    @property
    def _block_size(self) -> int:
        assert self.maxima is not None
        return int(self.values.shape[1] // self.maxima.shape[1])

    def _maxima_of(self, places: IntArray) -> FloatArray:
        """The maxima of whole blocks and of what the last one holds of tokens. [n, blocks]"""
        assert self.maxima is not None
        num_whole, num_left = divmod(self.num_tokens, self._block_size)
        maxima: FloatArray = self.maxima[places, : num_whole + bool(num_left)]
        if num_left:
            tail = self.values[places, num_whole * self._block_size : self.num_tokens]
            maxima[:, -1] = tail.max(axis=1)
        return maxima

    def _blocks_at(self, places: IntArray, blocks: IntArray) -> FloatArray:
        """A copy of some blocks, -inf where they pad the head. [n, block size]"""
        size = self._block_size
        values: FloatArray = self.values.reshape(len(self.values), -1, size)[places, blocks]
        num_whole, num_left = divmod(self.num_tokens, size)
        if num_left:
            values[blocks == num_whole, num_left:] = -np.inf
        return values
