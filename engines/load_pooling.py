"""Open a compiled model of embeddings or relevance: check its files, choose its backend."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from engines.device import Device, choose_device, parse_device
from engines.errors import EngineIncompatible
from engines.load import require_onnxruntime
from engines.machine import physical_cores
from engines.pooling.engine import EmbeddingEngine, PoolingEngine, RerankEngine
from engines.pooling.runner import PoolingRunner
from engines.pooling.scheduler import PoolingSchedulerConfig
from engines.pooling.spec import PoolingSpec
from engines.store import EngineFolder, check_files


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingEngineOptions:
    """How to run such an engine; what is None is chosen from the machine and the manifest."""

    scheduler: PoolingSchedulerConfig = field(default_factory=PoolingSchedulerConfig)
    num_threads: int | None = None  # None: the physical cores that this process may use
    max_context: int | None = None  # tokens of a text; None: the engine's own
    verify_files: bool = True
    device: str = "auto"  # or cpu, cuda, cuda:N

    def __post_init__(self) -> None:
        for name in ("num_threads", "max_context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but it must be at least 1")
        parse_device(self.device)  # refuses what is none


def load_pooling_engine(folder: EngineFolder, options: PoolingEngineOptions) -> PoolingEngine:
    """Load the engine of a folder; hashing its files and opening its graph run side by side.

    Raises:
        EngineError: It is of another kind, its target has no backend here, a file changed, or
            `max_context` is larger than the engine's.
    """
    manifest, spec = folder.manifest, require_pooling(folder)
    open_runner = _BACKENDS.get(manifest.target)
    if open_runner is None:
        raise EngineIncompatible(
            f"{folder.path} was built for {manifest.target}, but this release reads texts on "
            f"{', '.join(_BACKENDS)}: export the checkpoint again"
        )
    device = choose_device(manifest.target, parse_device(options.device))
    check_files(folder, contents=False)
    with ThreadPoolExecutor(1) as executor:
        check = executor.submit(check_files, folder) if options.verify_files else None
        runner = open_runner(folder, spec, options, device)
        if check is not None:
            check.result()
    engine_type = EmbeddingEngine if manifest.embedding is not None else RerankEngine
    return engine_type(runner, options.scheduler, spec.num_tokens, device=str(device))


def require_pooling(folder: EngineFolder) -> PoolingSpec:
    """What the manifest says of the model.

    Raises:
        EngineIncompatible: The engine is of another kind.
    """
    manifest = folder.manifest
    spec = manifest.embedding or manifest.rerank
    if spec is None:
        raise EngineIncompatible(
            f"{folder.path} is an engine of kind {manifest.kind}, not embedding or rerank"
        )
    return spec


def _open_ort_cpu(
    folder: EngineFolder, spec: PoolingSpec, options: PoolingEngineOptions, device: Device
) -> PoolingRunner:
    require_onnxruntime()
    from engines.backends.ort_pooling import OrtCpuPoolingRunner

    max_context = options.max_context or spec.max_context
    if max_context > spec.max_context:
        raise EngineIncompatible(
            f"max_context is {max_context}, but the engine was compiled for {spec.max_context}"
        )
    num_threads = options.num_threads or physical_cores()
    graph = folder.path / spec.graph
    return OrtCpuPoolingRunner(
        graph,
        spec,
        options.scheduler,
        max_context,
        num_threads,
        reduce_range=folder.manifest.reduce_range,
    )


_BACKENDS: dict[
    str, Callable[[EngineFolder, PoolingSpec, PoolingEngineOptions, Device], PoolingRunner]
] = {
    "ort-cpu": _open_ort_cpu,
}
