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
from engines.load import require_onnxruntime
from engines.machine import usable_cores
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
    max_batch_pixels: int | None = None  # None: so many a thread that rows gain by being together
    num_threads: int | None = None  # None: the physical cores that this process may use
    verify_files: bool = True
    device: str = "auto"  # or cpu, cuda, cuda:N
    rebuild: bool = False  # plans that were built for another GPU or version, instead of a refusal

    def __post_init__(self) -> None:
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads is {self.num_threads}, but it must be at least 1")
        parse_device(self.device)  # refuses what is none


def load_image_engine(folder: EngineFolder, options: ImageEngineOptions) -> ImageEngine:
    """Load the engine of a folder; hashing its files and opening its graphs run side by side.

    Raises:
        EngineError: It is not an image model, its target has no backend here, a file changed, or
            its noise schedule is not supported.
        ValueError: A limit is too small for a single request.
    """
    num_threads = options.num_threads or usable_cores()
    config = ImageSchedulerConfig(
        max_num_images=options.max_num_images,
        max_rows=options.max_rows,
        max_batch_pixels=_BATCH_PIXELS_PER_THREAD * num_threads
        if options.max_batch_pixels is None
        else options.max_batch_pixels,
    )
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
    check_files(folder, contents=False)
    schedule = _read_schedule(folder.path / spec.scheduler)
    with ThreadPoolExecutor(1) as executor:
        check = executor.submit(check_files, folder) if options.verify_files else None
        runner = open_runner(folder, spec, num_threads, device)
        if check is not None:
            check.result()
    return ImageEngine(runner, spec, schedule, config, device=str(device))


def _read_schedule(path: Path) -> NoiseSchedule:
    try:
        return NoiseSchedule.read(path)
    except ValueError as error:
        raise InvalidManifest(f"the noise schedule of {path.parent} cannot be used: {error}") from (
            error
        )


def _open_ort_cpu(
    folder: EngineFolder, spec: ImageSpec, num_threads: int, device: Device
) -> ImageRunner:
    require_onnxruntime()
    from engines.backends.ort_image import OrtCpuImageRunner

    return OrtCpuImageRunner(folder.path, spec, num_threads)


_BACKENDS: dict[str, Callable[[EngineFolder, ImageSpec, int, Device], ImageRunner]] = {
    "ort-cpu": _open_ort_cpu,
}
