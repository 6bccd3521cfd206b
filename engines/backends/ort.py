"""ONNX Runtime on CPU: one session for all shapes, or one for a phase; caches bound in place.

Decode runs `[n, 1]` over n neighbouring slots, prefill `[1, S]` on one slot; which kernels a token
meets depends on that alone. Rounding: int8 by rows and attention are bit-identical for every
number of rows; fp32 and int4 matmuls round differently for one row and more (docs/architecture.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.backends.file_pages import release_file_pages
from engines.backends.host_logits import HostLogits
from engines.backends.ort_session import open_session
from engines.backends.slot_arrays import SlotArray
from engines.errors import RunFailed
from engines.llm.runner import Batch, FloatArray, IntArray
from engines.manifest import ChatSpec

_MAX_BINDINGS = 64  # of decode, kept; one takes a fraction of a millisecond to make


@dataclass(frozen=True, slots=True)
class _Decode:
    """A binding for n slots; writing to the arrays sets the inputs of its next run."""

    binding: Any
    input_ids: IntArray  # [n, 1]
    seqlens_k: NDArray[np.int32]  # [n]
    total_length: NDArray[np.int32]  # []
    outputs: dict[str, FloatArray]  # of n rows each


class OrtCpuRunner:
    """Implements `ModelRunner`. All slots live in arrays `[num_slots, heads, rows, width]`.

    `profile` is how the files begin that get the time of every node when the runner is closed;
    `reduce_range` is the manifest's.
    """

    def __init__(
        self,
        graph: Path,
        spec: ChatSpec,
        num_slots: int,
        max_context: int,
        num_threads: int,
        profile: Path | None = None,
        *,
        reduce_range: bool = False,
    ) -> None:
        self._is_profiled = profile is not None
        self._session = self._decode_session = open_session(
            graph, num_threads, profile, reduce_range=reduce_range
        )
        if spec.decode_graph is not None:
            decode_graph = graph.with_name(spec.decode_graph)
            self._decode_session = open_session(
                decode_graph, num_threads, profile, reduce_range=reduce_range
            )
        release_file_pages(graph.parent)
        self._spec = spec
        self._max_context = max_context
        self._num_slots = num_slots
        num_rows = max_context + spec.spare_rows
        self._arrays = [SlotArray(state, num_slots, num_rows) for state in spec.states]
        self._fixed = [array for array in self._arrays if not array.grows]
        self.bytes_per_token = sum(array.bytes_per_token for array in self._arrays)
        self.bytes_per_slot = sum(array.bytes_per_slot for array in self._fixed)
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        # The maxima of blocks of the logits, of graphs that give them.
        self._num_blocks = int(shapes.get("block_maxima", (0, 0))[1])
        self._outputs = self._new_outputs(num_slots)
        self._decodes: dict[tuple[int, int], _Decode] = {}

    @property
    def num_slots(self) -> int:
        return self._num_slots

    @property
    def decodes_from_first(self) -> bool:
        return False

    @property
    def max_context(self) -> int:
        return self._max_context

    @property
    def vocab_size(self) -> int:
        return self._spec.num_tokens

    def run(self, batch: Batch) -> HostLogits:
        for row in np.flatnonzero(batch.past_lens == 0) if self._fixed else ():
            for array in self._fixed:
                array.array[batch.first_slot + row] = 0
        # A prompt of one token goes where every other token by itself does.
        is_decode = batch.input_ids.shape[1] == 1
        return self._run_decode(batch) if is_decode else self._run_prefill(batch)

    def save_state(self, slot: int) -> object:
        return [array.array[slot].copy() for array in self._fixed]

    def load_state(self, slot: int, state: object) -> None:
        assert isinstance(state, list)
        for array, saved in zip(self._fixed, state, strict=True):
            array.array[slot] = saved

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        for array in self._arrays:
            array.copy(source, target, num_tokens)

    def swap_slots(self, first: int, second: int, num_first: int, num_second: int) -> None:
        for array in self._arrays:
            array.swap(first, second, num_first, num_second)

    def release_slot(self, slot: int) -> None:
        for array in self._arrays:
            array.release(slot)

    def close(self) -> None:
        self._decodes.clear()
        self._arrays.clear()
        self._fixed.clear()
        if self._is_profiled:
            for session in {self._session, self._decode_session}:
                session.end_profiling()
        del self._session, self._decode_session

    def _run_decode(self, batch: Batch) -> HostLogits:
        window = batch.first_slot, batch.num_slots
        decode = self._decodes.get(window)
        if decode is None:
            if len(self._decodes) == _MAX_BINDINGS:
                del self._decodes[next(iter(self._decodes))]
            decode = self._decodes[window] = self._bind_decode(*window)
        decode.input_ids[:] = batch.input_ids
        decode.seqlens_k[:] = batch.past_lens
        decode.total_length[...] = batch.past_lens.max() + 1
        self._execute(self._decode_session, decode.binding)
        return self._answer(decode.outputs, batch.logit_indices)

    def _run_prefill(self, batch: Batch) -> HostLogits:
        num_rows = len(batch.logit_indices)
        size = batch.input_ids.shape[1]
        total = np.array(int(batch.past_lens[0]) + size, np.int32)
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": batch.input_ids,
            "seqlens_k": (total - 1).reshape(1).astype(np.int32),
            "total_sequence_length": total,
            "logit_indices": batch.logit_indices.astype(np.int64, copy=False),
        }
        outputs = self._outputs_of(num_rows)
        binding = self._bind(self._session, inputs, outputs, batch.first_slot, 1)
        self._execute(self._session, binding)
        return self._answer(outputs, np.arange(num_rows))

    def _answer(self, outputs: dict[str, FloatArray], positions: IntArray) -> HostLogits:
        return HostLogits(
            outputs["logits"], self.vocab_size, positions, outputs.get("block_maxima")
        )

    def _bind_decode(self, first_slot: int, num_rows: int) -> _Decode:
        input_ids = np.zeros((num_rows, 1), np.int64)
        seqlens_k = np.zeros(num_rows, np.int32)
        total_length = np.zeros((), np.int32)
        logit_indices = np.arange(num_rows)
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": input_ids,
            "seqlens_k": seqlens_k,
            "total_sequence_length": total_length,
            "logit_indices": logit_indices,
        }
        outputs = self._outputs_of(num_rows)
        binding = self._bind(self._decode_session, inputs, outputs, first_slot, num_rows)
        return _Decode(binding, input_ids, seqlens_k, total_length, outputs)

    def _bind(
        self,
        session: ort.InferenceSession,
        inputs: dict[str, NDArray[Any]],
        outputs: dict[str, FloatArray],
        first_slot: int,
        num_slots: int,
    ) -> Any:
        """A binding whose inputs, states and outputs are the given memory, not copies of it."""
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, _alias(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, _alias(array))
        for state, slots in zip(self._spec.states, self._arrays, strict=True):
            value = _alias(slots.array[first_slot : first_slot + num_slots])
            binding.bind_ortvalue_input(state.input, value)
            binding.bind_ortvalue_output(state.output, value)
        return binding

    @staticmethod
    def _execute(session: ort.InferenceSession, binding: Any) -> None:
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # the runtime raises plain classes of its own
            raise RunFailed(f"the runtime rejected a batch: {error}") from error

    def _outputs_of(self, num_rows: int) -> dict[str, FloatArray]:
        """Memory for the outputs of so many rows: what is there, unless it is too small."""
        if num_rows > len(self._outputs["logits"]):
            return self._new_outputs(num_rows)
        return {name: array[:num_rows] for name, array in self._outputs.items()}

    def _new_outputs(self, num_rows: int) -> dict[str, FloatArray]:
        widths = {"logits": self._spec.vocab_size}
        if self._num_blocks:
            widths["block_maxima"] = self._num_blocks
        return {name: np.empty((num_rows, width), np.float32) for name, width in widths.items()}


def _alias(array: NDArray[Any]) -> ort.OrtValue:
    """An OrtValue over the memory of `array`; a copy would lose what the graph writes to it."""
    value = ort.OrtValue.ortvalue_from_numpy(array)
    if array.size and value.data_ptr() != array.ctypes.data:
        raise RunFailed(f"an array of shape {array.shape} is not contiguous and cannot be bound")
    return value
