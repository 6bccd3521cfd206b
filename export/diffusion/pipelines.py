"""The table of pipelines: which components each one has and which graphs are drawn of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from export.diffusion.clip.text_encoder import HiddenState

Family = Literal["stable-diffusion", "stable-diffusion-xl"]
GraphKind = Literal["text_encoder", "unet", "vae_decoder", "vae_encoder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineGraph:
    """One graph to be drawn.

    Attributes:
        name: The graph's name, and that of its files.
        component: The component whose weights it takes.
        kind: What is drawn.
        hidden_state: Which layer's output a text encoder gives.
    """

    name: str
    component: str
    kind: GraphKind
    hidden_state: HiddenState = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One pipeline class of diffusers.

    Attributes:
        family: The pipeline as the manifest names it.
        models: Component -> the class that is supported for it.
        settings: Components without weights, which have a folder too.
        graphs: What is drawn, in this order.
    """

    family: Family
    models: Mapping[str, str]
    settings: tuple[str, ...]
    graphs: tuple[PipelineGraph, ...]


_UNET_AND_VAE = (
    PipelineGraph(name="unet", component="unet", kind="unet"),
    PipelineGraph(name="vae_decoder", component="vae", kind="vae_decoder"),
    PipelineGraph(name="vae_encoder", component="vae", kind="vae_encoder"),
)

STABLE_DIFFUSION = Pipeline(
    family="stable-diffusion",
    models=MappingProxyType(
        {
            "text_encoder": "CLIPTextModel",
            "unet": "UNet2DConditionModel",
            "vae": "AutoencoderKL",
        }
    ),
    settings=("tokenizer", "scheduler"),
    graphs=(
        PipelineGraph(name="text_encoder", component="text_encoder", kind="text_encoder"),
        *_UNET_AND_VAE,
    ),
)

STABLE_DIFFUSION_XL = Pipeline(
    family="stable-diffusion-xl",
    models=MappingProxyType(
        {
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "unet": "UNet2DConditionModel",
            "vae": "AutoencoderKL",
        }
    ),
    settings=("tokenizer", "tokenizer_2", "scheduler"),
    graphs=(
        *(
            PipelineGraph(
                name=name, component=name, kind="text_encoder", hidden_state="penultimate"
            )
            for name in ("text_encoder", "text_encoder_2")
        ),
        *_UNET_AND_VAE,
    ),
)

PIPELINES: Mapping[str, Pipeline] = MappingProxyType(
    {
        "StableDiffusionPipeline": STABLE_DIFFUSION,
        "StableDiffusionXLPipeline": STABLE_DIFFUSION_XL,
    }
)
