"""Compile an opened diffusers checkpoint into the files of an image engine, and describe them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.image.schedulers.schedule import SCHEDULER_CONFIG_NAME, NoiseSchedule
from engines.manifest import FileEntry, ImageSpec, Manifest, Source
from export.compile import built_with
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.compile import ComponentGraph, compile_component, plan_graphs
from export.diffusion.spec import image_spec, read_tokenizers
from export.diffusion.tokenizer import PromptTokenizer
from export.errors import CheckpointError
from export.precision import UniformPrecision
from export.progress import Progress
from export.weights import file_entry

_NODE_CLASSES = ("text_encoder", "denoiser", "vae")


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


def compile_image_engine(plan: ImagePlan, engine_dir: Path, progress: Progress) -> Manifest:
    """Write all files of the engine but `engine.json`; return its manifest, not verified yet."""
    checkpoint = plan.checkpoint
    source_hash = _hash_weights(checkpoint, progress)
    files = _write_graphs(plan, engine_dir, progress)
    for name, prompt in plan.tokenizers.items():
        prompt.tokenizer.save(str(engine_dir / name))
        files[name] = file_entry(engine_dir / name)
    scheduler = engine_dir / SCHEDULER_CONFIG_NAME
    scheduler.write_text(json.dumps(plan.scheduler_config, indent=2) + "\n")
    files[SCHEDULER_CONFIG_NAME] = file_entry(scheduler)
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
        node_precision=dict.fromkeys(_NODE_CLASSES, "fp32"),
        target="ort-cpu",
        built_with=built_with(),
        files=dict(sorted(files.items())),
        image=plan.spec,
    )


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


def _write_graphs(plan: ImagePlan, engine_dir: Path, progress: Progress) -> dict[str, FileEntry]:
    files: dict[str, FileEntry] = {}
    precision = UniformPrecision("fp32")
    with progress.stage("compiling", sum(graph.num_parts for graph in plan.graphs)) as advance:
        for graph in plan.graphs:

            def done(part: str, name: str = graph.name) -> None:
                advance(1, f"{name}: {part}")

            files |= compile_component(graph, engine_dir, precision, done)
    return files
