"""Compile an opened diffusers checkpoint into the files of an image engine, and describe them."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from engines.image.schedulers.schedule import SCHEDULER_CONFIG_NAME, NoiseSchedule
from engines.manifest import FileEntry, ImageSpec, Manifest, Source, TextEncoderSpec
from export.compile import built_with
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.clip.config import TextEncoderConfig
from export.diffusion.compile import ComponentGraph, compile_component, plan_graphs
from export.diffusion.defaults import default_settings, default_size
from export.diffusion.tokenizer import ClipTokenizer, read_clip_tokenizer
from export.diffusion.unet.config import UNetConfig
from export.diffusion.vae.config import VAEConfig
from export.errors import CheckpointError
from export.precision import UniformPrecision
from export.progress import Progress
from export.qwen.tensors import num_elements
from export.weights import file_entry

_PICTURE_CHANNELS = 3
_LARGEST_AREA = 4  # pictures may have so many times the pixels that the model was trained on
_NODE_CLASSES = ("text_encoder", "denoiser", "vae")


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """A checkpoint whose components fit together; nothing has been written yet."""

    checkpoint: DiffusionCheckpoint
    engine_id: str
    graphs: tuple[ComponentGraph, ...]
    tokenizers: dict[str, ClipTokenizer]  # file name -> tokenizer, as the text encoders come
    spec: ImageSpec


def plan_image_engine(checkpoint: DiffusionCheckpoint, engine_id: str) -> ImagePlan:
    """Check everything that can be checked before the first byte is written.

    Raises:
        CheckpointError: The checkpoint cannot be compiled.
    """
    graphs = plan_graphs(checkpoint)
    try:
        NoiseSchedule.from_config(checkpoint.scheduler_config)
    except ValueError as error:
        raise CheckpointError(f"scheduler/{SCHEDULER_CONFIG_NAME}: {error}") from None
    tokenizers = _read_tokenizers(checkpoint, graphs)
    return ImagePlan(
        checkpoint, engine_id, graphs, tokenizers, _image_spec(checkpoint, graphs, tokenizers)
    )


def compile_image_engine(plan: ImagePlan, engine_dir: Path, progress: Progress) -> Manifest:
    """Write all files of the engine but `engine.json`; return its manifest, not verified yet."""
    checkpoint = plan.checkpoint
    source_hash = _hash_weights(checkpoint, progress)
    files = _write_graphs(plan, engine_dir, progress)
    for name, clip in plan.tokenizers.items():
        clip.tokenizer.save(str(engine_dir / name))
        files[name] = file_entry(engine_dir / name)
    scheduler = checkpoint.folder / "scheduler" / SCHEDULER_CONFIG_NAME
    shutil.copyfile(scheduler, engine_dir / SCHEDULER_CONFIG_NAME)
    files[SCHEDULER_CONFIG_NAME] = file_entry(engine_dir / SCHEDULER_CONFIG_NAME)
    return Manifest(
        kind="image",
        id=plan.engine_id,
        family=checkpoint.pipeline.family,
        created=int(time.time()),
        source=Source(checkpoint=checkpoint.name, revision=checkpoint.revision, sha256=source_hash),
        precision="fp32",
        node_precision=dict.fromkeys(_NODE_CLASSES, "fp32"),
        target="ort-cpu",
        built_with=built_with(),
        files=dict(sorted(files.items())),
        image=plan.spec,
    )


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


def _read_tokenizers(
    checkpoint: DiffusionCheckpoint, graphs: tuple[ComponentGraph, ...]
) -> dict[str, ClipTokenizer]:
    """The tokenizer of `text_encoder_2` is `tokenizer_2`."""
    tokenizers = {}
    for graph in graphs:
        if isinstance(graph.config, TextEncoderConfig):
            folder = graph.component.replace("text_encoder", "tokenizer")
            tokenizers[f"{folder}.json"] = read_clip_tokenizer(
                checkpoint.folder / folder, graph.config
            )
    return tokenizers


def _image_spec(
    checkpoint: DiffusionCheckpoint,
    graphs: tuple[ComponentGraph, ...],
    tokenizers: dict[str, ClipTokenizer],
) -> ImageSpec:
    configs = {graph.name: graph.config for graph in graphs}
    unet, vae = configs["unet"], configs["vae_decoder"]
    assert isinstance(unet, UNetConfig)
    assert isinstance(vae, VAEConfig)
    for channels in (vae.in_channels, vae.out_channels):
        if channels != _PICTURE_CHANNELS:
            raise CheckpointError(
                f"vae/config.json has pictures of {channels} channels, but only "
                f"{_PICTURE_CHANNELS} are supported"
            )
    height, width = default_size(checkpoint, vae.scale)
    settings = default_settings(checkpoint)
    return ImageSpec(
        pipeline=checkpoint.pipeline.family,
        text_encoders=_text_encoder_specs(graphs, tokenizers),
        denoiser="unet.onnx",
        vae_decoder="vae_decoder.onnx",
        vae_encoder="vae_encoder.onnx",
        scheduler=SCHEDULER_CONFIG_NAME,
        latent_channels=vae.latent_channels,
        latent_scale=vae.scale,
        size_multiple=vae.scale,
        max_pixels=_LARGEST_AREA * height * width,
        default_height=height,
        default_width=width,
        default_num_inference_steps=settings.num_inference_steps,
        default_guidance_scale=settings.guidance_scale,
        takes_sizes=unet.text_time is not None,
        zeros_without_negative=_zeros_without_negative(checkpoint),
        guidance_width=unet.guidance_width,
        num_parameters=sum(
            num_elements({name: component.tensors.shape(name) for name in component.tensors})
            for component in checkpoint.components.values()
        ),
    )


def _text_encoder_specs(
    graphs: tuple[ComponentGraph, ...], tokenizers: dict[str, ClipTokenizer]
) -> tuple[TextEncoderSpec, ...]:
    encoders = [graph for graph in graphs if isinstance(graph.config, TextEncoderConfig)]
    specs = []
    for graph, (name, clip) in zip(encoders, tokenizers.items(), strict=True):
        assert isinstance(graph.config, TextEncoderConfig)
        specs.append(
            TextEncoderSpec(
                graph=f"{graph.name}.onnx",
                tokenizer=name,
                vocab_size=graph.config.vocab_size,
                max_length=clip.max_length,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        )
    lengths = {spec.max_length for spec in specs}
    if len(lengths) > 1:
        raise CheckpointError(
            f"the tokenizers have texts of {sorted(lengths)} ids, but the denoiser reads them side "
            "by side, so they must be of one length"
        )
    return tuple(specs)


def _zeros_without_negative(checkpoint: DiffusionCheckpoint) -> bool:
    """What SDXL was trained on; its pipeline does so unless model_index.json says otherwise."""
    is_xl = checkpoint.pipeline.family == "stable-diffusion-xl"
    return is_xl and bool(checkpoint.index.get("force_zeros_for_empty_prompt", True))
