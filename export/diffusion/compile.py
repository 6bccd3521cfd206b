"""Compile an opened diffusers checkpoint into graphs, one component after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines import __version__
from engines.manifest import FileEntry
from export.diffusion.checkpoint import Component, DiffusionCheckpoint
from export.diffusion.components import COMPONENT_CLASSES, Emit
from export.diffusion.fit import check_fit
from export.diffusion.layers import Advance
from export.diffusion.pipelines import PipelineGraph
from export.diffusion.traits import Traits
from export.errors import CheckpointError
from export.graph import GraphBuilder
from export.precision import LayoutChooser
from export.weights import WeightsFile, file_entry

OpenGraph = Callable[[WeightsFile, str], GraphBuilder]


@dataclass(frozen=True, slots=True)
class ComponentGraph:
    """A graph whose component was checked; nothing has been written yet.

    Attributes:
        name: The graph's name; its files are `{name}.onnx` and `{name}.onnx.data`, and where there
            is a shallow graph of step caching, `{name}_shallow.onnx` on the same weights.
        place: The graph's place in the pipeline.
        traits: What the others must know of the component.
        num_parts: How often its compilation advances.
        emit: Draws it.
        emit_shallow: Draws the shallow graph, or None.
    """

    name: str
    place: PipelineGraph
    traits: Traits
    num_parts: int
    emit: Emit
    emit_shallow: Emit | None = None

    @property
    def component(self) -> str:
        """The component whose weights it takes."""
        return self.place.component

    @property
    def drawings(self) -> dict[str, Emit]:
        """What draws each graph of the component, by name, the whole one first."""
        if self.emit_shallow is None:
            return {self.name: self.emit}
        return {self.name: self.emit, shallow_name(self.name): self.emit_shallow}


def plan_graphs(checkpoint: DiffusionCheckpoint) -> tuple[ComponentGraph, ...]:
    """Check everything that can be checked before the first byte is written.

    Raises:
        CheckpointError: A component cannot be compiled, or does not fit the others.
    """
    components = checkpoint.components
    graphs = tuple(
        plan_component(graph, components[graph.component])
        for graph in checkpoint.pipeline.graphs
        if graph.component in components
    )
    check_fit(checkpoint, {graph.place: graph.traits for graph in graphs})
    return graphs


def plan_component(graph: PipelineGraph, component: Component) -> ComponentGraph:
    """Check one component for one of its graphs.

    Raises:
        CheckpointError: It cannot be compiled.
    """
    drawing = COMPONENT_CLASSES[component.class_name](graph, component)
    return ComponentGraph(
        graph.name,
        graph,
        drawing.traits,
        drawing.num_parts + (drawing.emit_shallow is not None),
        drawing.emit,
        drawing.emit_shallow,
    )


def compile_component(
    graph: ComponentGraph,
    folder: Path,
    precision: LayoutChooser,
    advance: Advance,
    open_graph: OpenGraph = GraphBuilder,
) -> dict[str, FileEntry]:
    """Write the graphs of a component and their weights; return the entries of all files.

    What `open_graph` makes takes the nodes and weights of each graph.

    An `OSError` of the disk passes through: the caller knows what to remove.

    Raises:
        CheckpointError: A tensor holds NaN or infinity, or its file was cut short meanwhile.
        ValueError: A node is to have a layout that it cannot have.
    """
    weights_path = folder / f"{graph.name}.onnx.data"
    entries = {}
    with WeightsFile(weights_path) as weights:
        for name, emit in graph.drawings.items():
            builder = open_graph(weights, name)
            try:
                emit(graph=builder, precision=precision, advance=advance)
            except CheckpointError as error:
                raise CheckpointError(f"{graph.component}: {error}") from None
            path = folder / f"{name}.onnx"
            builder.save(path, __version__)
            entries[path.name] = file_entry(path)
        entries[weights_path.name] = weights.finish()
    return entries


def shallow_name(name: str) -> str:
    """What the shallow graph beside a whole one is called."""
    return f"{name}_shallow"
