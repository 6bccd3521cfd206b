"""Open a compiled language model: check its files, size its cache, choose its backend."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec

from engines.device import Device, choose_device, parse_device
from engines.errors import EngineIncompatible
from engines.llm.cache import Cache
from engines.llm.engine import LLMEngine
from engines.llm.kv_cache import KVCache
from engines.llm.runner import Runner
from engines.llm.scheduler import SchedulerConfig
from engines.llm.snapshot_cache import SnapshotCache
from engines.machine import available_memory, usable_cores
from engines.manifest import ChatSpec, Target
from engines.store import EngineFolder, check_files

_RUNTIMES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}  # by the extra that installs it
# Tokens of context at which attention costs a chunk as much as all else does: on two cores some
# 1,000 at the 0.5B shape, and more at larger ones.
_HALF_CHUNK_AT: dict[Target, int] = {"ort-cpu": 1024}
_CACHE_SHARE = 0.5  # of the memory that is free when the engine is loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to run an engine; what is None is chosen from the machine and the manifest."""

    max_num_seqs: int | None = None
    num_threads: int | None = None  # None: the physical cores that this process may use, by quota
    kv_cache_memory: int | None = None  # bytes; None: half of the free memory; on a GPU its share
    max_context: int | None = None  # tokens; None: the engine's own
    prefill_chunk: int | None = None
    prefill_chunk_streaming: int | None = None
    max_draft_tokens: int = 0  # of a stream that runs alone; 0 is off
    verify_files: bool = True
    device: str = "auto"  # or cpu, cuda, cuda:N
    gpu_memory_utilization: float = 0.9  # of a GPU's memory, for weights, caches and work space
    rebuild: bool = False  # plans that were built for another GPU or version, instead of a refusal

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "num_threads", "kv_cache_memory", "max_context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but it must be at least 1")
        parse_device(self.device)  # refuses what is none
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization}, but it must be above 0 "
                "and at most 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """How much runs at a time: sequences, and tokens of prompts."""

    max_num_seqs: int
    prefill_chunk: int
    prefill_chunk_streaming: int

    def with_options(self, options: EngineOptions) -> RunLimits:
        """The same with what the caller asked for."""
        asked = {field.name: getattr(options, field.name) for field in fields(self)}
        return replace(self, **{name: value for name, value in asked.items() if value is not None})

    def at_most(self, max_num_seqs: int) -> RunLimits:
        return replace(self, max_num_seqs=min(self.max_num_seqs, max_num_seqs))


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that a backend has loaded, what its sequences are kept in, and how much it runs."""

    runner: Runner
    kv_cache: Cache
    limits: RunLimits


CPU_LIMITS = RunLimits(max_num_seqs=8, prefill_chunk=128, prefill_chunk_streaming=64)


def load_llm_engine(folder: EngineFolder, options: EngineOptions) -> LLMEngine:
    """Load the engine of a folder; hashing its files and opening its graph run side by side.

    Raises:
        EngineError: It is not a language model, it cannot run on the device, a file changed,
            or `max_context` is larger than the engine's.
    """
    manifest, spec = folder.manifest, require_chat(folder)
    device = choose_device(manifest.target, parse_device(options.device))
    check_files(folder, contents=False)
    # A plan that is built anew is another file than the manifest of now says.
    checks_beside = options.verify_files and not options.rebuild
    if options.verify_files and not checks_beside:
        check_files(folder)
    with ThreadPoolExecutor(1) as executor:
        check = executor.submit(check_files, folder) if checks_beside else None
        opened = _BACKENDS[manifest.target](folder, spec, options, device)
        if check is not None:
            check.result()
    limits = opened.limits
    config = SchedulerConfig(
        max_num_seqs=limits.max_num_seqs,
        max_context=opened.runner.max_context,
        prefill_chunk=limits.prefill_chunk,
        prefill_chunk_streaming=limits.prefill_chunk_streaming,
        half_chunk_at=_HALF_CHUNK_AT.get(manifest.target),
        max_draft_tokens=options.max_draft_tokens,
        eos_token_ids=frozenset(spec.eos_token_ids),
    )
    return LLMEngine(opened.runner, config, opened.kv_cache, device=str(device))


def share_threads(folders: Collection[EngineFolder], num_threads: int | None) -> None:
    """Let engines on the CPU that are opened from now on compute in the same threads, if several.

    For a process that does nothing else with the runtime: see the backend's `share_threads`.
    """
    if sum(folder.manifest.target == "ort-cpu" for folder in folders) > 1:
        require_onnxruntime()
        from engines.backends import ort_session

        ort_session.share_threads(num_threads or usable_cores())


def require_chat(folder: EngineFolder) -> ChatSpec:
    """What the manifest says of a language model.

    Raises:
        EngineIncompatible: The engine is of another kind.
    """
    manifest = folder.manifest
    if manifest.chat is None:
        raise EngineIncompatible(f"{folder.path} is an engine of kind {manifest.kind}, not chat")
    return manifest.chat


def checked_context(spec: ChatSpec, options: EngineOptions) -> int:
    """Tokens of a sequence: what is asked for, or what the engine was compiled for.

    Raises:
        EngineIncompatible: It was compiled for fewer.
    """
    max_context = options.max_context or spec.max_context
    if max_context > spec.max_context:
        raise EngineIncompatible(
            f"max_context is {max_context}, but the engine was compiled for {spec.max_context}"
        )
    return max_context


def require_onnxruntime(extra: str = "cpu") -> None:
    """Refuse where the runtime is not installed.

    Raises:
        EngineIncompatible: It says how to install it.
    """
    if find_spec("onnxruntime") is None:
        raise EngineIncompatible(
            "this engine runs on ONNX Runtime, which is not installed: "
            f"`pip install {_RUNTIMES[extra]}`, or `pip install 'enginery[{extra}]'`"
        )


def _open_ort_cpu(
    folder: EngineFolder, spec: ChatSpec, options: EngineOptions, device: Device
) -> Opened:
    require_onnxruntime()
    from engines.backends.ort import OrtCpuRunner

    max_context = checked_context(spec, options)
    limits = CPU_LIMITS.with_options(options)
    # Twice the slots of running sequences: the others keep prefixes for later prompts.
    num_slots = 2 * limits.max_num_seqs
    num_threads = options.num_threads or usable_cores()
    runner = OrtCpuRunner(
        folder.path / spec.graph,
        spec,
        num_slots,
        max_context,
        num_threads,
        reduce_range=folder.manifest.reduce_range,
    )
    memory = options.kv_cache_memory or int(available_memory() * _CACHE_SHARE)
    if not runner.bytes_per_slot:
        return Opened(runner, KVCache(runner, memory), limits)
    if options.max_draft_tokens:
        runner.close()
        raise EngineIncompatible(
            f"{folder.path} keeps states that cannot be rolled back, so it takes no drafts: leave "
            f"out --max-draft-tokens (it is {options.max_draft_tokens})"
        )
    return Opened(runner, SnapshotCache(runner, memory), limits)


def _open_cuda(
    folder: EngineFolder, spec: ChatSpec, options: EngineOptions, device: Device
) -> Opened:
    from engines.load_gpu import open_cuda

    return open_cuda(folder, spec, options, device)


def _open_tensorrt(
    folder: EngineFolder, spec: ChatSpec, options: EngineOptions, device: Device
) -> Opened:
    from engines.load_gpu import open_tensorrt

    return open_tensorrt(folder, spec, options, device)


_BACKENDS: dict[Target, Callable[[EngineFolder, ChatSpec, EngineOptions, Device], Opened]] = {
    "ort-cpu": _open_ort_cpu,
    "cuda": _open_cuda,
    "tensorrt": _open_tensorrt,
}
