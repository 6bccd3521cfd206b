"""`python -m benchmarks gpu`: everything that is to be known of a GPU, in one run."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import describe_machine

if TYPE_CHECKING:
    from benchmarks.gpu.report import GpuReport

Part = Literal["chat", "parity", "images"]
_PACKAGES = ("onnxruntime-gpu", "tensorrt", "cuda-bindings", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConfig:
    """Measure language models and pictures on the GPU, and write the figures into a document."""

    work_dir: Annotated[
        Path | None, Parameter(help="checkpoints and engines; by default a folder that is removed")
    ] = None
    shapes: Annotated[tuple[str, ...], Parameter(help="published shapes of language models")] = (
        "qwen3-0.6b",
        "qwen3-8b",
    )
    precision: Annotated[str, Parameter(help="of these")] = "bf16"
    targets: Annotated[
        tuple[Literal["cuda", "tensorrt"], ...], Parameter(help="where they run")
    ] = ("cuda", "tensorrt")
    parts: Annotated[tuple[Part, ...], Parameter(help="what is measured")] = (
        "chat",
        "parity",
        "images",
    )
    repetitions: Annotated[int, Parameter(help="of each figure, of which the median counts")] = 3
    into: Annotated[
        Path | None, Parameter(help="document that gets the figures between its marks")
    ] = None


def run_gpu(config: GpuConfig) -> int:
    """Measure and report; what cannot run is named in the report.

    Raises:
        BenchmarkFailed: There is no GPU.
    """
    from benchmarks.gpu.chat import SHAPE_NAMES
    from engines.backends.cuda import find_gpu
    from engines.device import Device
    from engines.errors import EngineIncompatible

    unknown = set(config.shapes) - set(SHAPE_NAMES)
    if unknown:
        raise BenchmarkFailed(
            f"shapes has {', '.join(sorted(unknown))}, but there are {', '.join(SHAPE_NAMES)}"
        )
    try:
        gpu = find_gpu(Device("cuda"))
    except EngineIncompatible as error:
        raise BenchmarkFailed(str(error)) from error
    machine = {"gpu": f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)"}
    machine |= describe_machine(*_PACKAGES)
    if config.work_dir is not None:
        return _measure(config, config.work_dir, machine)
    with tempfile.TemporaryDirectory(prefix="enginery-gpu-") as folder:
        return _measure(config, Path(folder), machine)


def _measure(config: GpuConfig, work: Path, machine: dict[str, str]) -> int:
    from benchmarks.gpu.bandwidth import measured_bandwidth
    from benchmarks.gpu.report import GpuReport, render, write_into

    command = shlex.join(["python", "-m", "benchmarks", "gpu", *sys.argv[2:]])
    report = GpuReport(
        command=command, machine=machine, bandwidth=measured_bandwidth(), chat=[], parity=[]
    )
    for part in config.parts:
        PARTS[part](config, work, report)
        print(render(report), flush=True)  # what was found before something later fails
    if config.into is not None:
        write_into(config.into, report)
    return 0


def _chat(config: GpuConfig, work: Path, report: GpuReport) -> None:
    from benchmarks.gpu.chat import compile_shape, measure_chat

    for shape in config.shapes:
        for target in config.targets:
            with _named(f"{shape} on {target}", report):
                folder = compile_shape(work, shape, target, config.precision)  # type: ignore[arg-type]
                figures = measure_chat(folder, report.bandwidth, config.repetitions)
                report.chat.append(figures)
            if config.work_dir is None:  # an 8B engine takes 16 GB, and twice that with a plan
                shutil.rmtree(work / target, ignore_errors=True)
        if config.work_dir is None:
            shutil.rmtree(work / "checkpoints", ignore_errors=True)


def _parity(config: GpuConfig, work: Path, report: GpuReport) -> None:
    from benchmarks.gpu.demo import PRECISIONS, measure_parity

    for target in config.targets:
        for precision in PRECISIONS[target]:
            with _named(f"demo-chat in {precision} on {target}", report):
                report.parity.append(measure_parity(work, target, precision))


def _images(config: GpuConfig, work: Path, report: GpuReport) -> None:
    from benchmarks.gpu.images import (
        Nearness,
        Speed,
        measure_nearness,
        measure_speed,
        render_images,
    )

    near: list[Nearness] = []
    speeds: list[Speed] = []
    for target in config.targets:
        with _named(f"demo-diffusion on {target}", report):
            near += [measure_nearness(work, target, one) for one in ("fp32", "fp16")]
        with _named(f"Stable Diffusion XL on {target}", report):
            speeds.append(measure_speed(work, target, "fp16", config.repetitions))
    if near or speeds:
        report.more.append(render_images(near, speeds))


@contextmanager
def _named(name: str, report: GpuReport) -> Iterator[None]:
    """Say what is at work; what an engine or a library refuses is named in the report."""
    from engines.errors import EngineryError
    from export.errors import ExportError

    print(f"measuring {name}", file=sys.stderr, flush=True)
    try:
        yield
    except (EngineryError, ExportError, BenchmarkFailed) as error:
        report.skipped.append(f"{name}: {error}")


PARTS: dict[Part, Callable[[GpuConfig, Path, GpuReport], None]] = {
    "chat": _chat,
    "parity": _parity,
    "images": _images,
}
"""What is measured, by name; each adds to the report."""
