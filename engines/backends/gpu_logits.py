"""Logits that stay on the GPU: the likeliest of each row are fetched, whole rows when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engines.backends.cuda import Buffer, Stream
from engines.backends.gpu_session import DeviceArray
from engines.llm.candidates import superset
from engines.llm.runner import FloatArray, IntArray
from engines.manifest import ChatSpec


@dataclass(frozen=True, slots=True)
class GpuLogits:
    """Implements `RunOutput` and `OrderedCandidates`.

    Row i of the output is row `rows[i]` of the run, which may have computed idle ones too.
    """

    stream: Stream
    whole: DeviceArray  # [n, num_tokens]
    candidate_ids: IntArray  # [n, k], the likeliest first
    candidate_logits: FloatArray  # [n, k]
    rows: IntArray  # [R]
    fetched: dict[int, FloatArray] = field(default_factory=dict)

    @property
    def num_candidates(self) -> int:
        return int(self.candidate_ids.shape[1])

    def ordered_candidates(self, rows: IntArray, k: int) -> tuple[IntArray, FloatArray]:
        places = self.rows[rows]
        return self.candidate_ids[places, :k], self.candidate_logits[places, :k]

    def argmax(self, rows: IntArray) -> IntArray:
        likeliest: IntArray = self.candidate_ids[self.rows[rows], 0]
        return likeliest

    def candidates(self, row: int, k: int) -> tuple[IntArray, FloatArray]:
        if k > self.candidate_ids.shape[1]:
            values = self.logits(row)
            token_ids = superset(values, k)
            return token_ids, values[token_ids]
        position = self.rows[row]
        token_ids, values = self.candidate_ids[position, :k], self.candidate_logits[position, :k]
        order = np.argsort(token_ids)
        return token_ids[order], values[order]

    def logits(self, row: int) -> FloatArray:
        values = self.fetched.get(row)
        if values is None:
            width = self.whole.shape[1]
            values = np.empty(width, np.float32)
            offset = int(self.rows[row]) * width * values.itemsize
            self.stream.download(self.whole.pointer + offset, values)
            self.fetched[row] = values
        return values


class OutputBuffers:
    """Memory on the GPU for the outputs of runs.

    What is recorded writes to the same addresses for good, so runs of up to `max_rows` rows have
    memory that never moves. Larger ones, which are not recorded, share another that grows.
    """

    def __init__(self, stream: Stream, spec: ChatSpec, max_rows: int) -> None:
        self._stream = stream
        self._num_tokens = spec.num_tokens
        self._num_candidates = spec.num_candidates
        self._max_rows = max_rows
        self._num_large = 0  # rows of the memory for larger runs
        self._large: list[Buffer] = []
        self._buffers = self._take(max_rows)

    def arrays(self, num_rows: int) -> dict[str, DeviceArray]:
        """The outputs of a run by their names in the graph."""
        buffers = self._buffers
        if num_rows > self._max_rows:
            buffers = self._reserve(num_rows)
        logits, values, ids = (buffer.pointer for buffer in buffers)
        width = self._num_candidates
        return {
            "logits": DeviceArray(logits, "float32", (num_rows, self._num_tokens)),
            "candidate_logits": DeviceArray(values, "float32", (num_rows, width)),
            "candidate_ids": DeviceArray(ids, "int64", (num_rows, width)),
        }

    def fetch(self, num_rows: int, rows: IntArray) -> GpuLogits:
        """Wait for a run and fetch the likeliest tokens of its rows."""
        arrays = self.arrays(num_rows)
        ids = np.empty(arrays["candidate_ids"].shape, np.int64)
        values = np.empty(arrays["candidate_logits"].shape, np.float32)
        if num_rows:
            self._stream.download(arrays["candidate_ids"].pointer, ids)
            self._stream.download(arrays["candidate_logits"].pointer, values)
        else:
            self._stream.synchronize()
        return GpuLogits(self._stream, arrays["logits"], ids, values, rows)

    def close(self) -> None:
        for buffer in (*self._buffers, *self._large):
            buffer.close()
        self._buffers, self._large = [], []

    def _reserve(self, num_rows: int) -> list[Buffer]:
        if num_rows > self._num_large:
            for buffer in self._large:
                buffer.close()
            self._large = []
            self._large = self._take(num_rows)
            self._num_large = num_rows
        return self._large

    def _take(self, num_rows: int) -> list[Buffer]:
        widths = (4 * self._num_tokens, 4 * self._num_candidates, 8 * self._num_candidates)
        return [Buffer(num_rows * width) for width in widths]
