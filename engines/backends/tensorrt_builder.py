"""Build a plan from an ONNX graph: strongly typed, for the shapes of its profiles, cancellable.

Nothing here has run on a GPU yet (docs/gpu.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.backends.tensorrt_library import load_tensorrt, new_logger
from engines.errors import EngineIncompatible

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""The least, the usual and the largest shape of each input."""

Progress = Callable[[str, int, int], bool]
"""Told a phase, the steps that are done of it and all its steps; False ends the build."""

TIMING_CACHE = "timing.cache"


def build_plan(
    graph: Path,
    plan: Path,
    profiles: Sequence[Profile],
    progress: Progress = lambda phase, done, total: True,
    *,
    timing_cache: Path | None = None,
    refittable: bool = False,
) -> None:
    """Build `graph` for the current GPU and write it to `plan`, by rename.

    Args:
        graph: An ONNX file of standard operators; its external data lies beside it.
        plan: The file to write.
        profiles: The shapes that it is to be fast for; inputs not named have fixed shapes.
        progress: See `Progress`.
        timing_cache: What is known of the speed of kernels; read if it exists, and written. It
            makes a second build several times as fast.
        refittable: Whether weights may be exchanged later.

    Raises:
        EngineIncompatible: TensorRT is missing, or cannot read or build the graph.
    """
    tensorrt = load_tensorrt()
    log = new_logger(tensorrt)
    builder = tensorrt.Builder(log)
    network = builder.create_network(
        1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineIncompatible(f"TensorRT {tensorrt.__version__} cannot read {graph}: {reasons}")
    config = builder.create_builder_config()
    if refittable:
        config.set_flag(tensorrt.BuilderFlag.REFIT)
    for shapes in profiles:
        config.add_optimization_profile(_profile(builder, network, shapes))
    cache = config.create_timing_cache(
        timing_cache.read_bytes() if timing_cache and timing_cache.exists() else b""
    )
    config.set_timing_cache(cache, ignore_mismatch=False)
    monitor = _monitor(tensorrt, progress)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        reason = "it was stopped" if monitor.is_stopped else "its log says why"
        raise EngineIncompatible(
            f"TensorRT {tensorrt.__version__} could not build a plan of {graph}: {reason}"
        )
    _write(plan, serialized)
    if timing_cache is not None:
        _write(timing_cache, config.get_timing_cache().serialize())


def _profile(builder: Any, network: Any, shapes: Profile) -> Any:
    profile = builder.create_optimization_profile()
    names = {network.get_input(index).name for index in range(network.num_inputs)}
    for name, (least, usual, largest) in shapes.items():
        if name not in names:
            raise ValueError(f"the graph has no input {name!r}, but {', '.join(sorted(names))}")
        profile.set_shape(name, least, usual, largest)
    return profile


def _monitor(tensorrt: Any, progress: Progress) -> Any:
    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]  # the base is not known here
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.is_stopped = False
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._totals[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = self._totals.get(phase_name, step + 1)
            self.is_stopped |= not progress(phase_name, step + 1, total)
            return not self.is_stopped

        def phase_finish(self, phase_name: str) -> None:
            self._totals.pop(phase_name, None)

    return Monitor()


def _write(path: Path, content: Any) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(memoryview(content))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
