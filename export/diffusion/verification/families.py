"""How the pipeline of each family is asked for a picture: one entry each, with what differs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch

from engines.image.request import ImageRequest
from engines.manifest import ImageSpec
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.pipelines import Family

_NO_TEXT = " "


class PipelineReference:
    """How a pipeline is asked; a family overrides what differs."""

    class_name: str
    embeddings: tuple[str, ...] = ("prompt_embeds", "negative_prompt_embeds")

    def options(self, index: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the class beside its components, from model_index.json."""
        return {}

    def prepare(self, pipeline: Any, checkpoint: DiffusionCheckpoint) -> None:
        """Stand in for what a pipeline wants to know of modules that it does not have."""

    def encode(
        self, pipeline: Any, prompt: str, is_guided: bool, spec: ImageSpec
    ) -> dict[str, Any]:
        """The prompt's embeddings, by the arguments of the pipeline that take them."""
        found = pipeline.encode_prompt(
            prompt=prompt,
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=is_guided,
        )
        return dict(zip(self.embeddings, found, strict=True))

    def guidance(self, request: ImageRequest) -> dict[str, Any]:
        return {"guidance_scale": request.guidance_scale}

    def latents(self, pipeline: Any, noise: torch.Tensor) -> torch.Tensor:
        """The first latents as the pipeline wants them; `noise` is [1, latent_channels, h, w]."""
        return noise


class _StableDiffusion(PipelineReference):
    class_name = "StableDiffusionPipeline"

    def options(self, index: dict[str, Any]) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


class _StableDiffusionXL(PipelineReference):
    class_name = "StableDiffusionXLPipeline"
    embeddings = (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    )

    def options(self, index: dict[str, Any]) -> dict[str, Any]:
        zeros = index.get("force_zeros_for_empty_prompt", True)
        return {"force_zeros_for_empty_prompt": bool(zeros), "add_watermarker": False}


class _StableDiffusion3(PipelineReference):
    class_name = "StableDiffusion3Pipeline"

    def prepare(self, pipeline: Any, checkpoint: DiffusionCheckpoint) -> None:
        # The rows of zeros that stand for a text encoder that is left out are as wide as it says.
        if pipeline.transformer is None:
            config = checkpoint.components["transformer"].config
            pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**config))

    def encode(
        self, pipeline: Any, prompt: str, is_guided: bool, spec: ImageSpec
    ) -> dict[str, Any]:
        behind = [text.max_length for text in spec.text_encoders if text.context == "behind"]
        found = pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=prompt,
            prompt_3=prompt,
            device="cpu",
            do_classifier_free_guidance=is_guided,
            max_sequence_length=behind[0] if behind else spec.num_empty_rows,
        )
        return dict(zip(_StableDiffusionXL.embeddings, found, strict=True))


class _Flux(PipelineReference):
    class_name = "FluxPipeline"

    def encode(
        self, pipeline: Any, prompt: str, is_guided: bool, spec: ImageSpec
    ) -> dict[str, Any]:
        rows, pooled, _ = pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=prompt,
            device="cpu",
            max_sequence_length=spec.text_encoders[1].max_length,
        )
        return {"prompt_embeds": rows, "pooled_prompt_embeds": pooled}

    def latents(self, pipeline: Any, noise: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = pipeline._pack_latents(noise, *noise.shape)
        return packed


class _QwenImage(_Flux):
    class_name = "QwenImagePipeline"

    def encode(
        self, pipeline: Any, prompt: str, is_guided: bool, spec: ImageSpec
    ) -> dict[str, Any]:
        rows, mask = pipeline.encode_prompt(prompt=prompt, device="cpu")
        told = {"prompt_embeds": rows, "prompt_embeds_mask": mask}
        if is_guided:
            rows, mask = pipeline.encode_prompt(prompt=_NO_TEXT, device="cpu")
            told |= {"negative_prompt_embeds": rows, "negative_prompt_embeds_mask": mask}
        return told

    def guidance(self, request: ImageRequest) -> dict[str, Any]:
        return {"true_cfg_scale": request.guidance_scale}


FAMILIES: Mapping[Family, PipelineReference] = MappingProxyType(
    {
        "stable-diffusion": _StableDiffusion(),
        "stable-diffusion-xl": _StableDiffusionXL(),
        "stable-diffusion-3": _StableDiffusion3(),
        "flux": _Flux(),
        "qwen-image": _QwenImage(),
    }
)
