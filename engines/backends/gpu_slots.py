"""A language model on a GPU with a slot for each sequence: ONNX Runtime's graph, or a plan."""

from __future__ import annotations

from typing import Any

from engines.backends.cuda import Arena, Stream
from engines.backends.device_slots import DeviceSlots
from engines.backends.gpu_logits import GpuLogits, OutputBuffers
from engines.backends.gpu_session import DeviceArray, GpuSession, host_shape
from engines.backends.slot_inputs import DescribeBatch
from engines.llm.runner import Batch
from engines.manifest import ChatSpec


class GpuSlotRunner:
    """Implements `ModelRunner`.

    Args:
        session: The graph, which runs on `stream`.
        stream: Orders runs and copies.
        spec: What the manifest says of the graph.
        describe: How the graph is told of a batch.
        num_slots: How many sequences have a place.
        max_context: Tokens of a sequence.
        num_rows: Rows of a slot, those behind the context included.
        max_tokens: Tokens of a run.
    """

    def __init__(
        self,
        session: GpuSession,
        stream: Stream,
        spec: ChatSpec,
        describe: DescribeBatch,
        *,
        num_slots: int,
        max_context: int,
        num_rows: int,
        max_tokens: int,
    ) -> None:
        self._session = session
        self._stream = stream
        self._spec = spec
        self._describe = describe
        self._num_slots = num_slots
        self._max_context = max_context
        self._num_rows = num_rows
        most = max(max_tokens, num_slots)
        self._arena = Arena(stream, 4 * 8 * most + 8 * num_rows + 8 * 256)
        self._outputs = OutputBuffers(stream, spec, num_slots)
        self._slots = DeviceSlots(stream, spec.states, num_slots, num_rows)
        self._replayed: dict[int, Any] = {}  # bindings by graph key

    @property
    def num_slots(self) -> int:
        return self._num_slots

    @property
    def max_context(self) -> int:
        return self._max_context

    @property
    def vocab_size(self) -> int:
        return self._spec.num_tokens

    @property
    def bytes_per_token(self) -> int:
        return self._slots.bytes_per_token

    @property
    def decodes_from_first(self) -> bool:
        return True  # recorded steps are replayed from there, and the device's memory is fast

    def run(self, batch: Batch, /) -> GpuLogits:
        self._stream.use()
        inputs = self._describe(batch, self._num_rows)
        num_rows = inputs.num_logits
        arrays = inputs.on_device
        pointers = self._arena.send(list(arrays.values()))
        binding = self._replayed.get(inputs.graph_key or 0)
        if binding is None:
            sent = {
                name: DeviceArray(pointer, *host_shape(array))
                for (name, array), pointer in zip(arrays.items(), pointers, strict=True)
            }
            views = self._slots.view(batch.first_slot, batch.num_slots)
            outputs = self._outputs.arrays(num_rows)
            sent |= {state.input: views[state.input] for state in self._spec.states}
            outputs |= {state.output: views[state.output] for state in self._spec.states}
            binding = self._session.bind(sent, inputs.on_host, outputs)
            if inputs.graph_key is not None:
                self._replayed[inputs.graph_key] = binding
        self._session.run(binding, inputs.graph_key)
        return self._outputs.fetch(num_rows, inputs.rows)

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        self._slots.copy(source, target, num_tokens)

    def swap_slots(self, first: int, second: int, num_first: int, num_second: int) -> None:
        self._stream.use()
        self._slots.swap(first, second, num_first, num_second)

    def release_slot(self, slot: int) -> None:
        """The arrays are whole on the GPU: there is nothing to give back."""

    def close(self) -> None:
        self._replayed.clear()
        self._session.close()
        self._slots.close()
        self._outputs.close()
        self._arena.close()
        self._stream.close()
