"""A language model on CUDA with a cache of blocks: ragged runs, decode steps replayed by bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.backends.cuda import Arena, Buffer, Stream
from engines.backends.gpu_logits import GpuLogits, OutputBuffers
from engines.backends.gpu_session import ITEM_SIZES, DeviceArray, GpuSession, host_shape
from engines.backends.paged_inputs import MAX_SEQS, PagedInputs, bucket_of, pack
from engines.llm.runner import RaggedBatch
from engines.manifest import ChatSpec

BLOCK_SIZE = 256  # what the kernels take for heads of every width


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedLimits:
    """How large a run and the cache may get."""

    num_blocks: int
    max_seqs: int  # of a run
    max_tokens: int  # of a run
    max_context: int
    block_size: int = BLOCK_SIZE

    def __post_init__(self) -> None:
        if self.max_seqs > MAX_SEQS:
            raise ValueError(
                f"max_num_seqs is {self.max_seqs}, but PagedAttention takes {MAX_SEQS} at the most"
            )


class GpuPagedRunner:
    """Implements `BlockRunner`.

    Args:
        session: The graph, which runs on `stream`.
        stream: Orders runs and copies.
        spec: What the manifest says of the graph.
        limits: Sizes of runs and of the cache.
    """

    def __init__(
        self, session: GpuSession, stream: Stream, spec: ChatSpec, limits: PagedLimits
    ) -> None:
        self._session = session
        self._stream = stream
        self._spec = spec
        self._limits = limits
        self._arena = Arena(stream, self._arena_size())
        self._outputs = OutputBuffers(stream, spec, bucket_of(limits.max_seqs))
        self._caches: dict[str, Buffer] = {}
        self._replayed: dict[int, Any] = {}  # bindings by graph key
        self.resize(limits.num_blocks)

    @property
    def num_blocks(self) -> int:
        return self._num_blocks

    @property
    def block_size(self) -> int:
        return self._limits.block_size

    @property
    def max_context(self) -> int:
        return self._limits.max_context

    @property
    def vocab_size(self) -> int:
        return self._spec.num_tokens

    @property
    def bytes_per_token(self) -> int:
        return cache_bytes_per_token(self._spec)

    def resize(self, num_blocks: int) -> None:
        """Take another number of blocks; what the cache holds is lost."""
        self._free_caches()
        self._num_blocks = num_blocks
        for state in self._spec.states:
            row = state.heads * state.width * ITEM_SIZES[state.dtype]
            self._caches[state.input] = Buffer(num_blocks * self.block_size * row)

    def run(self, batch: RaggedBatch, /) -> GpuLogits:
        self._stream.use()
        inputs = pack(batch, self.block_size, self.max_context)
        num_rows = len(inputs.logit_indices)
        arrays = inputs.on_device(with_positions=self._spec.reads_positions)
        pointers = self._arena.send(list(arrays.values()))
        binding = self._replayed.get(inputs.graph_key or 0)
        if binding is None:
            sent = {
                name: DeviceArray(pointer, *host_shape(array))
                for (name, array), pointer in zip(arrays.items(), pointers, strict=True)
            }
            binding = self._bind(inputs, sent, num_rows)
        self._session.run(binding, inputs.graph_key)
        return self._outputs.fetch(num_rows, np.arange(len(batch.logit_indices)))

    def close(self) -> None:
        self._replayed.clear()
        self._session.close()
        self._free_caches()
        self._outputs.close()
        self._arena.close()
        self._stream.close()

    def _bind(self, inputs: PagedInputs, sent: dict[str, DeviceArray], num_rows: int) -> Any:
        outputs = self._outputs.arrays(num_rows)
        for state in self._spec.states:
            shape = (self._num_blocks, self.block_size, state.heads, state.width)
            cache = DeviceArray(self._caches[state.input].pointer, state.dtype, shape)
            sent[state.input] = outputs[state.output] = cache
        host = {"attention_metadata": inputs.attention_metadata}
        binding = self._session.bind(sent, host, outputs)
        if inputs.graph_key is not None:
            self._replayed[inputs.graph_key] = binding
        return binding

    def _arena_size(self) -> int:
        """Bytes of the largest inputs: the most tokens, each its own sequence or all of one."""
        limits = self._limits
        most = max(limits.max_tokens, MAX_SEQS)
        blocks = -(-limits.max_context // limits.block_size)
        per_token = 8 + 4 + 8 + 8  # ids, slots, logit indices and positions
        tables = MAX_SEQS * (blocks + 1) * 4
        return most * per_token + 2 * MAX_SEQS * 4 + tables + 16 * 256

    def _free_caches(self) -> None:
        self._replayed.clear()
        for buffer in self._caches.values():
            buffer.close()
        self._caches.clear()


def cache_bytes_per_token(spec: ChatSpec) -> int:
    """What one token takes in all caches together."""
    return sum(state.heads * state.width * ITEM_SIZES[state.dtype] for state in spec.states)
