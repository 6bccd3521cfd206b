"""The table of pipelines: which components each one has and which graphs are drawn of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from export.diffusion.clip.text_encoder import HiddenState

Family = Literal[
    "stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "flux", "qwen-image"
]
GraphKind = Literal["text_encoder", "denoiser", "vae_decoder", "vae_encoder"]
Context = Literal["beside", "behind", "none"]

TEXT_ENCODER = "text_encoder"  # how the components of that kind are called, with numbers behind


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineGraph:
    """One graph to be drawn.

    Attributes:
        name: The graph's name, and that of its files.
        component: The component whose weights it takes.
        kind: What is drawn.
        hidden_state: Which layer's output a text encoder gives.
        context: Where a text encoder's rows go for the denoiser: beside or behind those of the
            ones before it, or nowhere.
        gives_pooled: Whether the denoiser reads this text encoder's row for the whole text too.
    """

    name: str
    component: str
    kind: GraphKind
    hidden_state: HiddenState = "last"
    context: Context = "beside"
    gives_pooled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One pipeline class of diffusers.

    Attributes:
        family: The pipeline as the manifest names it.
        models: Component -> the class that is supported for it.
        graphs: What is drawn, in this order.
        denoiser: The component that removes noise.
        optional: A component that a checkpoint may leave out; zeros stand for its rows.
        even_steps: Whether the pipeline spreads the levels of noise itself, evenly down to
            1 / steps.
    """

    family: Family
    models: Mapping[str, str]
    graphs: tuple[PipelineGraph, ...]
    denoiser: str = "transformer"
    optional: str | None = None
    even_steps: bool = False


def tokenizer_of(text_encoder: str) -> str:
    """The component that a text encoder's tokenizer is: `tokenizer_2` for `text_encoder_2`."""
    return text_encoder.replace(TEXT_ENCODER, "tokenizer")


def _text_encoder(
    name: str,
    hidden_state: HiddenState = "last",
    *,
    context: Context = "beside",
    gives_pooled: bool = False,
) -> PipelineGraph:
    return PipelineGraph(
        name=name,
        component=name,
        kind="text_encoder",
        hidden_state=hidden_state,
        context=context,
        gives_pooled=gives_pooled,
    )


def _denoiser_and_vae(denoiser: str) -> tuple[PipelineGraph, ...]:
    return (
        PipelineGraph(name=denoiser, component=denoiser, kind="denoiser"),
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
    graphs=(_text_encoder("text_encoder"), *_denoiser_and_vae("unet")),
    denoiser="unet",
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
    graphs=(
        _text_encoder("text_encoder", "penultimate"),
        _text_encoder("text_encoder_2", "penultimate", gives_pooled=True),
        *_denoiser_and_vae("unet"),
    ),
    denoiser="unet",
)

STABLE_DIFFUSION_3 = Pipeline(
    family="stable-diffusion-3",
    models=MappingProxyType(
        {
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "text_encoder_3": "T5EncoderModel",
            "transformer": "SD3Transformer2DModel",
            "vae": "AutoencoderKL",
        }
    ),
    graphs=(
        _text_encoder("text_encoder", "penultimate", gives_pooled=True),
        _text_encoder("text_encoder_2", "penultimate", gives_pooled=True),
        _text_encoder("text_encoder_3", context="behind"),
        *_denoiser_and_vae("transformer"),
    ),
    optional="text_encoder_3",
)

FLUX = Pipeline(
    family="flux",
    models=MappingProxyType(
        {
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "T5EncoderModel",
            "transformer": "FluxTransformer2DModel",
            "vae": "AutoencoderKL",
        }
    ),
    graphs=(
        _text_encoder("text_encoder", context="none", gives_pooled=True),
        _text_encoder("text_encoder_2"),
        *_denoiser_and_vae("transformer"),
    ),
    even_steps=True,
)

QWEN_IMAGE = Pipeline(
    family="qwen-image",
    models=MappingProxyType(
        {
            "text_encoder": "Qwen2_5_VLForConditionalGeneration",
            "transformer": "QwenImageTransformer2DModel",
            "vae": "AutoencoderKLQwenImage",
        }
    ),
    graphs=(_text_encoder("text_encoder"), *_denoiser_and_vae("transformer")),
    even_steps=True,
)

PIPELINES: Mapping[str, Pipeline] = MappingProxyType(
    {
        "StableDiffusionPipeline": STABLE_DIFFUSION,
        "StableDiffusionXLPipeline": STABLE_DIFFUSION_XL,
        "StableDiffusion3Pipeline": STABLE_DIFFUSION_3,
        "FluxPipeline": FLUX,
        "QwenImagePipeline": QWEN_IMAGE,
    }
)
