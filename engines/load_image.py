"""Open a compiled image model: check its files, read its noise schedule, choose its backend."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engines.device import Device, choose_device, parse_device
from engines.errors import EngineIncompatible, InvalidManifest
from engines.image.engine import ImageEngine
from engines.image.runner import ImageRunner
from engines.image.scheduler import ImageSchedulerConfig
from engines.image.schedulers.schedule import NoiseSchedule
from engines.image.tiling import Tiling, TilingMode
from engines.load import require_onnxruntime
from engines.machine import available_memory, usable_cores
from engines.manifest import ImageSpec
from engines.store import EngineFolder, check_files

# Rows of smaller pictures share what a run costs at any size; those of larger ones fill the cores
# by themselves. On two cores that is four rows of 256 x 256 pixels.
_BATCH_PIXELS_PER_THREAD = 2 * 256 * 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEngineOptions:
    """How to run an image engine; what is None is chosen from the machine."""

    max_num_images: int = 4
    max_rows: int = 8
    max_batch_pixels: int | None = None  # None: as many as gain by being together; no limit on GPUs
    num_threads: int | None = None  # None: the physical cores that this process may use
    verify_files: bool = True
    vae_tiling: TilingMode = "auto"
    vae_tile_size: int = 512  # pixels a side
    device: str = "auto"  # or cpu, cuda, cuda:N
    rebuild: bool = False  # plans that were built for another GPU or version, instead of a refusal

    def __post_init__(self) -> None:
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads is {self.num_threads}, but it must be at least 1")
        parse_device(self.device)  # refuses what is none


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """A model that a backend has loaded, and how much memory its runs may still take."""

    runner: ImageRunner
    available_memory: Callable[[], int]  # bytes


def load_image_engine(folder: EngineFolder, options: ImageEngineOptions) -> ImageEngine:
    """Load the engine of a folder; hashing its files and opening its graphs run side by side.

    Raises:
        EngineError: It is not an image model, its target has no backend here, a file changed, or
            its noise schedule is not supported.
        ValueError: A limit is too small for a single request.
    """
    manifest, spec = folder.manifest, folder.manifest.image
    if spec is None:
        raise EngineIncompatible(f"{folder.path} is an engine of kind {manifest.kind}, not image")
    open_runner = _BACKENDS.get(manifest.target)
    if open_runner is None:
        raise EngineIncompatible(
            f"{folder.path} was built for {manifest.target}, but this release draws on "
            f"{', '.join(_BACKENDS)}: export the checkpoint again"
        )
    device = choose_device(manifest.target, parse_device(options.device))
    config = _scheduler_config(options, device)
    check_files(folder, contents=False)
    schedule = _read_schedule(folder.path / spec.scheduler)
    with ThreadPoolExecutor(1) as executor:
        check = executor.submit(check_files, folder) if options.verify_files else None
        opened = open_runner(folder, spec, options, device)
        if check is not None:
            check.result()
    tiling = Tiling(
        mode=options.vae_tiling,
        tile_size=options.vae_tile_size // spec.latent_scale,
        scale=spec.latent_scale,
        available=opened.available_memory,
    )
    return ImageEngine(opened.runner, spec, schedule, config, str(device), tiling)


def _scheduler_config(options: ImageEngineOptions, device: Device) -> ImageSchedulerConfig:
    max_batch_pixels = options.max_batch_pixels
    if max_batch_pixels is None and device.kind == "cpu":
        max_batch_pixels = _BATCH_PIXELS_PER_THREAD * (options.num_threads or usable_cores())
    return ImageSchedulerConfig(
        max_num_images=options.max_num_images,
        max_rows=options.max_rows,
        max_batch_pixels=max_batch_pixels,
    )


def _read_schedule(path: Path) -> NoiseSchedule:
    try:
        return NoiseSchedule.read(path)
    except ValueError as error:
        raise InvalidManifest(f"the noise schedule of {path.parent} cannot be used: {error}") from (
            error
        )


def _open_ort_cpu(
    folder: EngineFolder, spec: ImageSpec, options: ImageEngineOptions, device: Device
) -> OpenedImage:
    require_onnxruntime()
    from engines.backends.ort_image import OrtCpuImageRunner

    num_threads = options.num_threads or usable_cores()
    runner = OrtCpuImageRunner(
        folder.path, spec, num_threads, reduce_range=folder.manifest.reduce_range
    )
    return OpenedImage(runner, available_memory)


def _open_cuda(
    folder: EngineFolder, spec: ImageSpec, options: ImageEngineOptions, device: Device
) -> OpenedImage:
    """Nothing of this has run on a GPU yet (docs/gpu.md)."""
    require_onnxruntime("gpu")
    from engines.backends.cuda import Stream, find_gpu, free_memory
    from engines.backends.gpu_image import GpuImageRunner
    from engines.backends.ort_gpu_session import OrtGpuSession

    gpu = find_gpu(device)
    stream = Stream(gpu.index)
    recorded = {spec.denoiser, spec.shallow_denoiser}

    def open_session(graph: str) -> OrtGpuSession:
        return OrtGpuSession(
            folder.path / graph,
            gpu.index,
            stream.handle,
            records_graphs=graph in recorded,
            shapes_on_cpu=True,
        )

    return OpenedImage(GpuImageRunner(open_session, stream, spec), free_memory)


def _open_tensorrt(
    folder: EngineFolder, spec: ImageSpec, options: ImageEngineOptions, device: Device
) -> OpenedImage:
    """Nothing of this has run on a GPU yet (docs/gpu.md)."""
    from engines.backends.cuda import Stream, find_gpu, free_memory
    from engines.backends.gpu_image import GpuImageRunner
    from engines.backends.tensorrt_image_plan import image_plans, plan_name
    from engines.backends.tensorrt_session import TensorRTSession

    gpu = find_gpu(device)
    image_plans(folder, spec, gpu, rebuild=options.rebuild)
    stream = Stream(gpu.index)

    def open_session(graph: str) -> TensorRTSession:
        return TensorRTSession(folder.path / plan_name(graph), stream)

    return OpenedImage(GpuImageRunner(open_session, stream, spec), free_memory)


_BACKENDS: dict[
    str, Callable[[EngineFolder, ImageSpec, ImageEngineOptions, Device], OpenedImage]
] = {
    "ort-cpu": _open_ort_cpu,
    "cuda": _open_cuda,
    "tensorrt": _open_tensorrt,
}
