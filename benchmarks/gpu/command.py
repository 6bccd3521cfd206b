"""`python -m benchmarks gpu`: everything that is to be known of a GPU, in one run."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
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
    parts: Annotated[tuple[Part, ...], Parameter(help="what is measured, in this order")] = (
        "parity",
        "chat",
        "images",
    )
    repetitions: Annotated[int, Parameter(help="of each figure, of which the median counts")] = 3
    max_minutes: Annotated[
        float | None, Parameter(help="nothing more is begun after so long; it is named as not run")
    ] = None
    into: Annotated[
        Path | None, Parameter(help="document that gets the figures between its marks")
    ] = None
    predict_at: Annotated[
        float | None,
        Parameter(help="GB/s of a GPU: print what is to be expected there, and measure nothing"),
    ] = None


def run_gpu(config: GpuConfig) -> int:
    """Measure and report; what cannot run is named in the report.

    Raises:
        BenchmarkFailed: There is no GPU, or it has no memory left.
    """
    from benchmarks.gpu.chat import SHAPE_NAMES
    from benchmarks.gpu.prediction import predict
    from engines.backends.cuda import find_gpu
    from engines.device import Device
    from engines.errors import EngineIncompatible

    unknown = set(config.shapes) - set(SHAPE_NAMES)
    if unknown:
        raise BenchmarkFailed(
            f"shapes has {', '.join(sorted(unknown))}, but there are {', '.join(SHAPE_NAMES)}"
        )
    if config.predict_at is not None:
        print(predict(config.shapes, config.predict_at * 1e9))
        return 0
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
    from engines.errors import RunFailed

    command = shlex.join(["python", "-m", "benchmarks", "gpu", *sys.argv[2:]])
    try:
        bandwidth = measured_bandwidth()
    except RunFailed as error:
        raise BenchmarkFailed(f"its bandwidth cannot be measured: {error}") from error
    report = GpuReport(command=command, machine=machine, bandwidth=bandwidth, chat=[], parity=[])
    run = _Run(config, work, report)
    for part in config.parts:
        PARTS[part](run)
        print(render(report), flush=True)  # what was found before something later fails
        if config.into is not None:
            write_into(config.into, report)
    return 0


class _Run:
    """What parts share: the folder, the report, the targets that can be had, and the time left."""

    def __init__(self, config: GpuConfig, work: Path, report: GpuReport) -> None:
        self.config = config
        self.work = work
        self.report = report
        self.targets = [target for target in config.targets if self._has(target)]
        minutes = config.max_minutes
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes

    @contextmanager
    def named(self, name: str) -> Iterator[bool]:
        """Say what is at work, and whether there is time; what refuses is named in the report."""
        from engines.errors import EngineryError
        from export.errors import ExportError

        if self._deadline is not None and time.monotonic() > self._deadline:
            self.report.skipped.append(f"{name}: {self.config.max_minutes:g} minutes were over")
            yield False
            return
        print(f"measuring {name}", file=sys.stderr, flush=True)
        try:
            yield True
        except (EngineryError, ExportError, BenchmarkFailed) as error:
            self.report.skipped.append(f"{name}: {error}")

    def _has(self, target: str) -> bool:
        """Asked once, before engines are compiled that nothing here could run."""
        from engines.backends.tensorrt_library import load_tensorrt
        from engines.errors import EngineIncompatible

        if target == "tensorrt":
            try:
                load_tensorrt()
            except EngineIncompatible as error:
                self.report.skipped.append(f"everything on tensorrt: {error}")
                return False
        return True


def _chat(run: _Run) -> None:
    from benchmarks.gpu.chat import compile_shape, measure_chat

    config, work = run.config, run.work
    for shape in config.shapes:
        for target in run.targets:
            with run.named(f"{shape} on {target}") as begins:
                if begins:
                    folder = compile_shape(work, shape, target, config.precision)  # type: ignore[arg-type]
                    bandwidth = run.report.bandwidth
                    run.report.chat.append(measure_chat(folder, bandwidth, config.repetitions))
            if config.work_dir is None:  # an 8B engine takes 16 GB, and twice that with a plan
                shutil.rmtree(work / target, ignore_errors=True)
        if config.work_dir is None:
            shutil.rmtree(work / "checkpoints", ignore_errors=True)


def _parity(run: _Run) -> None:
    from benchmarks.gpu.demo import PRECISIONS, measure_parity

    for target in run.targets:
        for precision in PRECISIONS[target]:
            with run.named(f"demo-chat in {precision} on {target}") as begins:
                if begins:
                    run.report.parity.append(measure_parity(run.work, target, precision))


def _images(run: _Run) -> None:
    from benchmarks.gpu.images import (
        Nearness,
        Speed,
        measure_nearness,
        measure_speed,
        render_images,
    )

    near: list[Nearness] = []
    speeds: list[Speed] = []
    for target in run.targets:
        with run.named(f"demo-diffusion on {target}") as begins:
            if begins:
                near += [measure_nearness(run.work, target, one) for one in ("fp32", "fp16")]
        with run.named(f"Stable Diffusion XL on {target}") as begins:
            if begins:
                speeds.append(measure_speed(run.work, target, "fp16", run.config.repetitions))
    if near or speeds:
        run.report.more.append(render_images(near, speeds))


PARTS: dict[Part, Callable[[_Run], None]] = {
    "chat": _chat,
    "parity": _parity,
    "images": _images,
}
"""What is measured, by name; each adds to the report."""
