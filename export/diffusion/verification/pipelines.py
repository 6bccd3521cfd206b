"""The pipelines of diffusers, of which a stage at a time has its weights loaded.

Nothing is taken from a checkpoint's own code, and only safetensors files are read.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.image.request import Picture
from engines.image.schedulers.schedule import SHORT_NAMES
from engines.manifest import ImageSpec
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.pipelines import TEXT_ENCODER, Family, tokenizer_of
from export.diffusion.verification.drawing import DrawnPicture
from export.diffusion.verification.families import FAMILIES
from export.lora.merged import MergedTensor
from export.tensor_files import TensorFiles

_HALF_PRECISION = ".fp16."
_NO_LIMIT = 1_000_000  # ids; a tokenizer that names no length of a text has one far above


def reference_name() -> str:
    return f"diffusers {metadata.version('diffusers')} fp32"


def load_module(checkpoint: DiffusionCheckpoint, name: str) -> Any:
    """One component with its weights in fp32."""
    component = checkpoint.components[name]
    library = checkpoint.index[name][0]
    is_transformers = library == "transformers"
    module_class = getattr(_library(library), component.class_name)
    is_half = all(_HALF_PRECISION in path.name for path in component.tensors.paths)
    module = module_class.from_pretrained(
        checkpoint.folder / name,
        use_safetensors=True,
        local_files_only=True,
        variant="fp16" if is_half else None,
        **{"dtype" if is_transformers else "torch_dtype": torch.float32},
    )
    _add_loras(module, component.tensors)
    return module.eval()


def _add_loras(module: Any, tensors: TensorFiles) -> None:
    """Give a module the sums that its graph was compiled from, where there are any."""
    parameters = dict(module.named_parameters())
    for name in tensors:
        if isinstance(tensors.stored(name), MergedTensor):
            own = name if name in parameters else name.removeprefix("text_model.")
            with torch.no_grad():
                parameters[own].copy_(torch.from_numpy(tensors.read(name)))


def open_pipeline(
    checkpoint: DiffusionCheckpoint,
    spec: ImageSpec,
    modules: Mapping[str, Any],
    scheduler: str | None,
) -> Any:
    """The pipeline with some of its modules; the others are None."""
    reference = FAMILIES[checkpoint.pipeline.family]
    pipeline_class = getattr(_library("diffusers"), reference.class_name)
    encoders = [name for name in checkpoint.components if name.startswith(TEXT_ENCODER)]
    tokenizers = {
        tokenizer_of(name): _load_tokenizer(checkpoint, tokenizer_of(name), encoder.max_length)
        for name, encoder in zip(encoders, spec.text_encoders, strict=True)
    }
    components = checkpoint.pipeline.models  # with one that a checkpoint may leave out
    names = [tokenizer_of(name) for name in components if name.startswith(TEXT_ENCODER)]
    pipeline = pipeline_class(
        **{name: modules.get(name) for name in components},
        **{name: tokenizers.get(name) for name in names},
        scheduler=_build_scheduler(checkpoint, scheduler),
        **reference.options(checkpoint.index),
    )
    pipeline.vae_scale_factor = spec.latent_scale  # it cannot know without its autoencoder
    pipeline.set_progress_bar_config(disable=True)
    reference.prepare(pipeline, checkpoint)
    return pipeline


def encode_prompts(
    pipeline: Any, family: Family, spec: ImageSpec, pictures: tuple[DrawnPicture, ...]
) -> list[dict[str, Any]]:
    """The embeddings of each picture's prompt, by a pipeline that has its text encoders."""
    reference = FAMILIES[family]
    with torch.inference_mode():
        return [
            reference.encode(pipeline, drawn.prompt, drawn.request.is_guided(spec), spec)
            for drawn in pictures
        ]


def draw_reference(
    pipeline: Any, family: Family, drawn: DrawnPicture, embeddings: dict[str, Any]
) -> Picture:
    """The same picture by a pipeline that has all but its text encoders. [height, width, 3]"""
    reference, request = FAMILIES[family], drawn.request
    with torch.inference_mode():
        images: NDArray[np.float32] = pipeline(
            height=request.height,
            width=request.width,
            num_inference_steps=request.num_inference_steps,
            latents=reference.latents(pipeline, torch.from_numpy(drawn.noise)[None]),
            output_type="np",
            **reference.guidance(request),
            **{name: value for name, value in embeddings.items() if value is not None},
        ).images
    levels: Picture = (images[0] * 255).round().astype(np.uint8)
    return levels


def _build_scheduler(checkpoint: DiffusionCheckpoint, name: str | None) -> Any:
    config = checkpoint.scheduler_config
    class_name, pinned = (config["_class_name"], {}) if name is None else SHORT_NAMES[name]
    scheduler: Any = getattr(_library("diffusers"), class_name)
    return scheduler.from_config(config, **pinned)


def _load_tokenizer(checkpoint: DiffusionCheckpoint, name: str, max_length: int) -> Any:
    library, class_name = checkpoint.index[name]
    tokenizer = getattr(_library(library), class_name).from_pretrained(
        checkpoint.folder / name, local_files_only=True
    )
    if tokenizer.model_max_length > _NO_LIMIT:
        tokenizer.model_max_length = max_length
    return tokenizer


def _library(name: str) -> Any:
    """transformers or diffusers, which say nothing while they work."""
    if name not in ("transformers", "diffusers"):
        raise ValueError(f"{name} is not a library that components come from")
    library: Any = importlib.import_module(name)
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library
