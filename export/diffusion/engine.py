"""Compile an opened diffusers checkpoint into the files of an image engine, and describe them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from engines.image.schedulers.schedule import SCHEDULER_CONFIG_NAME, NoiseSchedule
from engines.manifest import FileEntry, ImageSpec, Manifest, Source, Target
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.compile import ComponentGraph, compile_component, plan_graphs
from export.diffusion.gpu.builder import GpuGraphBuilder
from export.diffusion.gpu.layouts import GpuPrecision, gpu_layouts, gpu_precisions
from export.diffusion.quantization.precision import Int8Precision, Ranges, describe_layouts
from export.diffusion.spec import image_spec, read_tokenizers
from export.diffusion.tokenizer import PromptTokenizer
from export.errors import CheckpointError
from export.graph import GraphBuilder
from export.precision import INT8_MAX, REDUCED_INT8_MAX, Layout, LayoutChooser, UniformPrecision
from export.progress import Advance, Progress
from export.versions import built_with
from export.weights import WeightsFile, file_entry


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """A checkpoint whose components fit together; nothing has been written yet."""

    checkpoint: DiffusionCheckpoint
    engine_id: str
    graphs: tuple[ComponentGraph, ...]
    tokenizers: dict[str, PromptTokenizer]  # file name -> tokenizer, as the text encoders come
    scheduler_config: dict[str, Any]
    spec: ImageSpec


def plan_image_engine(checkpoint: DiffusionCheckpoint, engine_id: str) -> ImagePlan:
    """Check everything that can be checked before the first byte is written.

    Raises:
        CheckpointError: The checkpoint cannot be compiled.
    """
    graphs = plan_graphs(checkpoint)
    scheduler_config = _scheduler_config(checkpoint)
    tokenizers = read_tokenizers(checkpoint, graphs)
    spec = image_spec(checkpoint, graphs, tokenizers)
    return ImagePlan(checkpoint, engine_id, graphs, tokenizers, scheduler_config, spec)


def compile_image_engine(
    plan: ImagePlan,
    engine_dir: Path,
    progress: Progress,
    ranges: Ranges | None = None,
    *,
    reduce_range: bool = False,
) -> Manifest:
    """Write all files of the engine but `engine.json`; return its manifest, not verified yet.

    With the ranges of its activations the engine is int8, without them fp32; with a reduced range
    of weights these fill 7 bits.
    """
    source_hash = _hash_weights(plan.checkpoint, progress)
    files: dict[str, FileEntry] = {}
    int8_max = REDUCED_INT8_MAX if reduce_range else INT8_MAX
    with progress.stage("compiling", sum(graph.num_parts for graph in plan.graphs)) as advance:
        for graph in plan.graphs:
            chooser: LayoutChooser = UniformPrecision("fp32")
            if ranges is not None:
                chooser = Int8Precision(graph.place.kind, ranges[graph.name], int8_max)
            done = partial(_advance_part, advance, graph.name)
            files |= compile_component(graph, engine_dir, chooser, done)
    precision: Layout = "fp32" if ranges is None else "int8"
    node_precision = describe_layouts(precision, [graph.place.kind for graph in plan.graphs])
    manifest = _describe(plan, engine_dir, source_hash, files, plan.spec)
    return msgspec.structs.replace(
        manifest,
        precision=precision,
        node_precision=node_precision,
        reduce_range=reduce_range and precision == "int8",
        target="ort-cpu",
    )


def compile_gpu_image_engine(
    plan: ImagePlan,
    engine_dir: Path,
    progress: Progress,
    target: Target,
    precision: GpuPrecision | None,
) -> Manifest:
    """The same for a GPU; no precision is the family's default.

    Raises:
        ExportError: The family is not compiled in that precision.
    """
    precision = precision or gpu_precisions(plan.checkpoint.pipeline.family)[0]
    layouts = gpu_layouts(plan.checkpoint, precision, standard_only=target == "tensorrt")
    source_hash = _hash_weights(plan.checkpoint, progress)
    files: dict[str, FileEntry] = {}
    builders: dict[str, GpuGraphBuilder] = {}
    with progress.stage("compiling", sum(graph.num_parts for graph in plan.graphs)) as advance:
        for graph in plan.graphs:

            def open_graph(
                weights: WeightsFile, name: str, component: str = graph.component
            ) -> GraphBuilder:
                builder = GpuGraphBuilder(weights, name, layouts[component])
                builders[f"{name}.onnx"] = builder
                return builder

            done = partial(_advance_part, advance, graph.name)
            fp32 = UniformPrecision("fp32")
            files |= compile_component(graph, engine_dir, fp32, done, open_graph)
    graphs = {name: builder.signature for name, builder in builders.items()}
    spec = msgspec.structs.replace(plan.spec, graphs=graphs)
    if target == "tensorrt":
        spec = msgspec.structs.replace(spec, max_side=_largest_side(spec))
    manifest = _describe(plan, engine_dir, source_hash, files, spec)
    node_precision = {name: layout.description for name, layout in layouts.items()}
    return msgspec.structs.replace(
        manifest, precision=precision, node_precision=node_precision, target=target
    )


def _largest_side(spec: ImageSpec) -> int:
    """A plan keeps memory for the largest picture, so that one is half as long again as usual."""
    side = max(spec.default_height, spec.default_width) * 3 // 2
    side -= side % spec.size_multiple
    return side if spec.max_side is None else min(side, spec.max_side)


def _advance_part(advance: Advance, graph: str, part: str) -> None:
    advance(1, f"{graph}: {part}")


def _describe(
    plan: ImagePlan,
    engine_dir: Path,
    source_hash: str,
    files: dict[str, FileEntry],
    spec: ImageSpec,
) -> Manifest:
    """The manifest in fp32; writes what is beside the graphs."""
    checkpoint = plan.checkpoint
    for name in write_settings(plan, engine_dir):
        files[name] = file_entry(engine_dir / name)
    return Manifest(
        kind="image",
        id=plan.engine_id,
        family=checkpoint.pipeline.family,
        created=int(time.time()),
        source=Source(
            checkpoint=checkpoint.name,
            revision=checkpoint.revision,
            sha256=source_hash,
            loras=checkpoint.loras,
        ),
        precision="fp32",
        built_with=built_with(),
        files=dict(sorted(files.items())),
        image=spec,
    )


def write_settings(plan: ImagePlan, folder: Path) -> list[str]:
    """Write the tokenizers and the scheduler's config; return the names of the files."""
    for name, prompt in plan.tokenizers.items():
        prompt.tokenizer.save(str(folder / name))
    scheduler = json.dumps(plan.scheduler_config, indent=2) + "\n"
    (folder / SCHEDULER_CONFIG_NAME).write_text(scheduler)
    return [*plan.tokenizers, SCHEDULER_CONFIG_NAME]


def _scheduler_config(checkpoint: DiffusionCheckpoint) -> dict[str, Any]:
    """The checkpoint's own, with what its pipeline adds."""
    config = checkpoint.scheduler_config
    if checkpoint.pipeline.even_steps:
        config = config | {"even_steps": True}
    try:
        NoiseSchedule.from_config(config)
    except ValueError as error:
        raise CheckpointError(f"scheduler/{SCHEDULER_CONFIG_NAME}: {error}") from None
    return config


def _hash_weights(checkpoint: DiffusionCheckpoint, progress: Progress) -> str:
    """One hash over the names and the hashes of all components."""
    components = sorted(checkpoint.components.items())
    total = sum(component.tensors.num_bytes for _, component in components)
    digest = hashlib.sha256()
    with progress.stage("hashing the checkpoint", total) as advance:
        for name, component in components:
            digest.update(f"{name} {component.tensors.sha256(advance)}\n".encode())
    return digest.hexdigest()
