"""ONNX Runtime on CPU for graphs that read texts: fresh texts side by side, or one chunk of one.

The attention kernel takes several rows only where nothing precedes them, each padded behind its
end, with S equal to the longest; junk keys of the padding are never attended to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.backends.ort_session import open_session
from engines.backends.slot_arrays import SlotArray
from engines.errors import RunFailed
from engines.llm.runner import FloatArray
from engines.manifest import StateSpec
from engines.pooling.runner import PoolingBatch
from engines.pooling.scheduler import PoolingSchedulerConfig
from engines.pooling.spec import CacheSpec, PoolingSpec


class OrtCpuPoolingRunner:
    """Implements `PoolingRunner`."""

    def __init__(
        self,
        graph: Path,
        spec: PoolingSpec,
        limits: PoolingSchedulerConfig,
        max_context: int,
        num_threads: int,
        *,
        reduce_range: bool = False,
    ) -> None:
        self._session = open_session(graph, num_threads, reduce_range=reduce_range)
        self._spec = spec
        self._max_context = max_context
        self._states = _states(spec.cache)
        num_slots, num_tokens = limits.max_rows, min(limits.max_run_tokens, max_context)
        self._whole = [SlotArray(state, num_slots, num_tokens) for state in self._states]
        self._chunked = [SlotArray(state, 1, max_context) for state in self._states]

    @property
    def max_context(self) -> int:
        return self._max_context

    def run(self, batch: PoolingBatch) -> FloatArray:
        num_rows, size = batch.input_ids.shape
        arrays = self._chunked if batch.is_chunk else self._whole
        totals = batch.num_past + batch.lengths
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": batch.input_ids,
            "seqlens_k": (totals - 1).astype(np.int32),
            "total_sequence_length": np.array(batch.num_past + size, np.int32),
            "logit_indices": (np.arange(num_rows) * size + batch.lengths - 1).astype(np.int64),
        }
        output = np.empty((num_rows, self._spec.output_width), np.float32)
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, _alias(array))
        binding.bind_ortvalue_output(self._spec.output, _alias(output))
        for state, slots in zip(self._states, arrays, strict=True):
            value = _alias(slots.array[:num_rows])
            binding.bind_ortvalue_input(state.input, value)
            binding.bind_ortvalue_output(state.output, value)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # the runtime raises plain classes of its own
            raise RunFailed(f"the runtime rejected a batch: {error}") from error
        return output

    def release(self) -> None:
        for array in (*self._whole, *self._chunked):
            for slot in range(len(array.array)):
                array.release(slot)

    def close(self) -> None:
        self._whole.clear()
        self._chunked.clear()
        del self._session


def _states(cache: CacheSpec) -> list[StateSpec]:
    return [
        StateSpec(
            input=f"past_key_values.{layer}.{kind}",
            output=f"present.{layer}.{kind}",
            heads=cache.heads,
            width=cache.width,
        )
        for layer in range(cache.num_layers)
        for kind in ("key", "value")
    ]


def _alias(array: NDArray[Any]) -> ort.OrtValue:
    """An OrtValue over the memory of `array`; a copy would lose what the graph writes to it."""
    value = ort.OrtValue.ortvalue_from_numpy(array)
    if array.size and value.data_ptr() != array.ctypes.data:
        raise RunFailed(f"an array of shape {array.shape} is not contiguous and cannot be bound")
    return value
