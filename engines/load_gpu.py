"""Open a language model on a GPU: find the device, load the graph, size the cache.

Nothing here has run on a GPU yet (docs/gpu.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engines.device import Device
from engines.errors import EngineIncompatible
from engines.llm.block_cache import BlockCache
from engines.llm.kv_cache import KVCache
from engines.load import EngineOptions, Opened, RunLimits, checked_context, require_onnxruntime
from engines.manifest import ChatSpec
from engines.store import EngineFolder

if TYPE_CHECKING:
    from engines.backends.cuda import Stream
    from engines.backends.gpu_session import GpuSession
    from engines.backends.slot_inputs import DescribeBatch

PAGED_LIMITS = RunLimits(max_num_seqs=256, prefill_chunk=2048, prefill_chunk_streaming=512)
SLOT_LIMITS = RunLimits(max_num_seqs=32, prefill_chunk=512, prefill_chunk_streaming=256)
_MIN_SLOTS = 2


def open_cuda(
    folder: EngineFolder, spec: ChatSpec, options: EngineOptions, device: Device
) -> Opened:
    """A graph for CUDA, on ONNX Runtime.

    Raises:
        EngineIncompatible: A library, the driver or the GPU is missing, or its memory is too small.
    """
    require_onnxruntime("gpu")
    from engines.backends.cuda import Stream, find_gpu
    from engines.backends.ort_gpu_session import OrtGpuSession

    gpu = find_gpu(device)
    needs_ampere = "bfloat16" in {state.dtype for state in spec.states}
    if needs_ampere and gpu.major < 8:
        raise EngineIncompatible(
            f"{folder.path} computes in bfloat16, which needs compute capability 8.0, but "
            f"{gpu.name} has {gpu.compute_capability}: export it with --precision fp16"
        )
    stream = Stream(gpu.index)
    session = OrtGpuSession(folder.path / spec.graph, gpu.index, stream.handle)
    if spec.kv_cache == "blocks":
        return open_paged(session, stream, spec, options, gpu.total_memory)
    from engines.backends.slot_inputs import inputs_on_cuda

    describe = inputs_on_cuda(spec)
    num_rows = checked_context(spec, options) + spec.spare_rows
    return open_slots(session, stream, spec, options, gpu.total_memory, describe, num_rows)


def open_tensorrt(
    folder: EngineFolder, spec: ChatSpec, options: EngineOptions, device: Device
) -> Opened:
    """A plan of TensorRT, built anew if that is asked for and it is another GPU's.

    Raises:
        EngineIncompatible: A library, the driver or the GPU is missing, or the plan does not fit.
    """
    from engines.backends.cuda import Stream, find_gpu
    from engines.backends.slot_inputs import standard_inputs
    from engines.backends.tensorrt_plan import MAX_CHUNK, MAX_SLOTS, chat_plan
    from engines.backends.tensorrt_session import TensorRTSession

    gpu = find_gpu(device)
    plan = chat_plan(folder, spec, gpu, rebuild=options.rebuild)
    stream = Stream(gpu.index)
    session = TensorRTSession(plan, stream)
    num_rows = spec.max_context + spec.spare_rows  # a plan has them fixed
    chunk = min(options.prefill_chunk or MAX_CHUNK, MAX_CHUNK)
    streaming = min(options.prefill_chunk_streaming or SLOT_LIMITS.prefill_chunk_streaming, chunk)
    options = replace(options, prefill_chunk=chunk, prefill_chunk_streaming=streaming)
    return open_slots(
        session,
        stream,
        spec,
        options,
        gpu.total_memory,
        standard_inputs,
        num_rows,
        max_slots=MAX_SLOTS,
    )


def open_paged(
    session: GpuSession, stream: Stream, spec: ChatSpec, options: EngineOptions, total_memory: int
) -> Opened:
    """A runner over blocks that take what weights and work space leave of the GPU's share.

    A first run of the largest size, over a cache as small as it can be, shows the work space.
    """
    import numpy as np

    from engines.backends.cuda import free_memory
    from engines.backends.gpu_paged import (
        BLOCK_SIZE,
        GpuPagedRunner,
        PagedLimits,
        cache_bytes_per_token,
    )
    from engines.llm.runner import RaggedBatch

    limits = PAGED_LIMITS.with_options(options)
    max_context = checked_context(spec, options)
    chunk = min(limits.prefill_chunk, max_context)
    num_blocks = -(-chunk // BLOCK_SIZE)
    runner = GpuPagedRunner(
        session,
        stream,
        spec,
        PagedLimits(
            num_blocks=num_blocks,
            max_seqs=limits.max_num_seqs,
            max_tokens=limits.prefill_chunk + limits.max_num_seqs,
            max_context=max_context,
        ),
    )
    largest = RaggedBatch(
        input_ids=np.zeros(chunk, np.int64),
        cu_seqlens=np.array([0, chunk], np.int32),
        past_lens=np.zeros(1, np.int32),
        block_tables=np.arange(num_blocks, dtype=np.int32)[None],
        logit_indices=np.array([chunk - 1]),
    )
    runner.run(largest)
    block_bytes = BLOCK_SIZE * cache_bytes_per_token(spec)
    budget = _budget(free_memory() + num_blocks * block_bytes, total_memory, options)
    fitting = min(budget // block_bytes, limits.max_num_seqs * -(-max_context // BLOCK_SIZE))
    if fitting < num_blocks:
        runner.close()
        raise EngineIncompatible(
            f"{max(budget, 0) / 1e9:.1f} GB of the GPU's memory are left for the KV cache, but one "
            f"chunk of {chunk} tokens takes {num_blocks * block_bytes / 1e9:.1f} GB: raise "
            "--gpu-memory-utilization, or choose a smaller --prefill-chunk or model"
        )
    runner.resize(fitting)
    return Opened(runner, BlockCache(runner), limits)


def open_slots(
    session: GpuSession,
    stream: Stream,
    spec: ChatSpec,
    options: EngineOptions,
    total_memory: int,
    describe: DescribeBatch,
    num_rows: int,
    max_slots: int | None = None,
) -> Opened:
    """A runner over as many slots as memory has room for, twice as many as sequences at the most.

    Where there is room for fewer, fewer sequences run at a time.
    """
    from engines.backends.cuda import free_memory
    from engines.backends.device_slots import slot_bytes
    from engines.backends.gpu_slots import GpuSlotRunner

    limits = SLOT_LIMITS.with_options(options)
    one = slot_bytes(spec.states, num_rows)
    rows = 4 * spec.num_tokens * 2 * limits.max_num_seqs  # the logits of all slots
    budget = _budget(free_memory() - rows, total_memory, options)
    num_slots = min(2 * limits.max_num_seqs, budget // one)
    if max_slots is not None:
        num_slots = min(num_slots, max_slots)
    if num_slots < _MIN_SLOTS:
        session.close()
        stream.close()
        raise EngineIncompatible(
            f"{max(budget, 0) / 1e9:.1f} GB of the GPU's memory are left for the KV cache, but a "
            f"sequence takes {one / 1e9:.1f} GB, and there have to be {_MIN_SLOTS}: export the "
            "model with a smaller --max-context"
        )
    runner = GpuSlotRunner(
        session,
        stream,
        spec,
        describe,
        num_slots=num_slots,
        max_context=checked_context(spec, options),
        num_rows=num_rows,
        max_tokens=limits.prefill_chunk,
    )
    limits = limits.at_most(max_num_seqs=num_slots)
    # Slots are whole on the GPU: as many tokens as they have rows may be held.
    return Opened(runner, KVCache(runner, num_slots * num_rows * runner.bytes_per_token), limits)


def _budget(free: int, total: int, options: EngineOptions) -> int:
    """Bytes for the cache: what is asked for, or what others leave of the share that is ours."""
    available = free - int((1 - options.gpu_memory_utilization) * total)
    if options.kv_cache_memory is None:
        return available
    return min(options.kv_cache_memory, available)
