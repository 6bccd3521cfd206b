"""Compile one component and run it: what the graphs' contracts say, and nothing more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engines.backends.ort_session import open_session
from export.checkpoint import read_json_object
from export.diffusion.checkpoint import Component
from export.diffusion.compile import ComponentGraph, compile_component, plan_component
from export.diffusion.pipelines import PipelineGraph
from export.precision import UniformPrecision
from export.tensor_files import open_tensor_files

FP32 = UniformPrecision("fp32")
TOLERANCE = 1e-5


class CompiledGraph:
    """A graph on ONNX Runtime; `run` takes and returns tensors of torch by name."""

    def __init__(self, path: Path) -> None:
        self.session = open_session(path, num_threads=1)  # more would only wait for each other
        self.inputs = {value.name: value.shape for value in self.session.get_inputs()}
        self.outputs = {value.name: value.shape for value in self.session.get_outputs()}

    def run(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        feeds = {name: value.numpy() for name, value in inputs.items()}
        found = self.session.run(None, feeds)
        return {
            name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)
        }


def compile_graph(graph: ComponentGraph, folder: Path, precision=FP32) -> CompiledGraph:
    compile_component(graph, folder, precision, advance=lambda part: None)
    return CompiledGraph(folder / f"{graph.name}.onnx")


def save_component(module: torch.nn.Module, folder: Path, name: str) -> Component:
    """Save a module of diffusers or transformers as a component and open it."""
    module.save_pretrained(folder / name)
    return open_component(folder, name, type(module).__name__)


def open_component(folder: Path, name: str, class_name: str) -> Component:
    """Open a saved component, as its files are by now."""
    is_diffusers = any((folder / name).glob("diffusion_pytorch_model*"))
    return Component(
        name,
        class_name,
        read_json_object(folder / name / "config.json"),
        open_tensor_files(folder / name, "diffusion_pytorch_model" if is_diffusers else "model"),
    )


def compile_module(
    module: torch.nn.Module, folder: Path, name: str, precision=FP32, **place
) -> CompiledGraph:
    """From a module to its compiled graph, through a checkpoint on the disk."""
    component = save_component(module, folder, name.partition("_")[0])
    return compile_opened(component, folder, name, precision, **place)


def compile_opened(
    component: Component, folder: Path, name: str, precision=FP32, **place
) -> CompiledGraph:
    kind = "denoiser" if name in ("unet", "transformer") else name
    graph = PipelineGraph(name=name, component=component.name, kind=kind, **place)
    return compile_graph(plan_component(graph, component), folder, precision)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance=TOLERANCE) -> None:
    assert found.shape == expected.shape
    assert expected.std() > 0.05, "numbers this flat would agree whatever the graph does"
    error = (found - expected).abs().max().item()
    assert error < tolerance, error


def row_differences(batch: torch.Tensor) -> float:
    """The smallest of the largest differences between two rows: 0 where two are the same."""
    rows = batch.flatten(1).numpy()
    return min(float(np.abs(a - b).max()) for i, a in enumerate(rows) for b in rows[:i])
