"""The table of component classes: how each one is read, checked and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from export.diffusion.checkpoint import Component
from export.diffusion.clip import text_encoder as clip
from export.diffusion.clip.config import read_text_encoder_config
from export.diffusion.clip.tensors import open_text_encoder_tensors
from export.diffusion.clip.tokenizer import read_clip_tokenizer
from export.diffusion.flux import transformer as flux
from export.diffusion.flux.config import read_flux_config
from export.diffusion.layers import Advance
from export.diffusion.pipelines import PipelineGraph
from export.diffusion.qwen_image import autoencoder as qwen_vae
from export.diffusion.qwen_image import text_encoder as qwen_text
from export.diffusion.qwen_image import transformer as qwen_image
from export.diffusion.qwen_image.text_config import (
    open_text_tensors,
    read_text_config,
    text_traits,
)
from export.diffusion.qwen_image.tokenizer import read_qwen_tokenizer
from export.diffusion.qwen_image.transformer_config import (
    open_qwen_transformer_tensors,
    read_qwen_transformer_config,
)
from export.diffusion.qwen_image.vae_config import read_qwen_vae_config
from export.diffusion.qwen_image.vae_tensors import open_qwen_vae_tensors
from export.diffusion.sd3 import transformer as sd3
from export.diffusion.sd3.config import read_sd3_config
from export.diffusion.sd3.tensors import open_sd3_tensors
from export.diffusion.t5 import encoder as t5
from export.diffusion.t5.config import read_t5_config
from export.diffusion.t5.tokenizer import read_t5_tokenizer
from export.diffusion.tokenizer import PromptTokenizer
from export.diffusion.traits import TextTraits, Traits
from export.diffusion.unet import unet
from export.diffusion.unet.config import read_unet_config
from export.diffusion.unet.tensors import open_unet_tensors
from export.diffusion.vae import autoencoder
from export.diffusion.vae.config import read_vae_config
from export.diffusion.vae.tensors import open_vae_tensors
from export.errors import CheckpointError
from export.graph import GraphBuilder
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles


class Emit(Protocol):
    """Emits one component into a graph."""

    def __call__(
        self, *, graph: GraphBuilder, precision: LayoutChooser, advance: Advance
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Drawing:
    """A component that was checked, as one of its graphs.

    Attributes:
        traits: What the others must know of it.
        num_parts: How often its emission advances.
        emit: Draws it.
        emit_shallow: Draws the shallow graph of step caching, one part, on the same weights; None
            where the component has none.
    """

    traits: Traits
    num_parts: int
    emit: Emit
    emit_shallow: Emit | None = None


Draw = Callable[[PipelineGraph, Component], Drawing]
ReadTokenizer = Callable[[Path, TextTraits], PromptTokenizer]


def _draw_clip(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_text_encoder_config(
        component.config_file,
        component.config,
        has_projection=component.class_name == "CLIPTextModelWithProjection",
    )
    tensors = _open(component, partial(open_text_encoder_tensors, config))
    outputs = clip.Outputs(
        hidden_state=None if graph.context == "none" else graph.hidden_state,
        pooled=graph.gives_pooled or config.projection_dim is not None,
    )
    emit = partial(clip.emit_text_encoder, config, tensors, outputs=outputs)
    return Drawing(config.traits, clip.num_parts(config, outputs), emit)


def _draw_t5(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_t5_config(component.config_file, component.config)
    tensors = _open(component, partial(t5.open_t5_tensors, config))
    return Drawing(
        config.traits, t5.num_parts(config), partial(t5.emit_t5_encoder, config, tensors)
    )


def _draw_sd3(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_sd3_config(component.config_file, component.config)
    tensors = _open(component, partial(open_sd3_tensors, config))
    emit = partial(sd3.emit_sd3_transformer, config, tensors)
    return Drawing(config.traits, sd3.num_parts(config), emit)


def _draw_flux(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_flux_config(component.config_file, component.config)
    tensors = _open(component, partial(flux.open_flux_tensors, config))
    emit = partial(flux.emit_flux_transformer, config, tensors)
    return Drawing(config.traits, flux.num_parts(config), emit)


def _draw_unet(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_unet_config(component.config_file, component.config)
    tensors = _open(component, partial(open_unet_tensors, config))
    return Drawing(
        config.traits,
        unet.num_parts(config),
        partial(unet.emit_unet, config, tensors),
        partial(unet.emit_shallow_unet, config, tensors),
    )


def _draw_vae(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_vae_config(component.config_file, component.config)
    tensors = _open(component, partial(open_vae_tensors, config))
    half = (
        autoencoder.emit_vae_decoder
        if graph.kind == "vae_decoder"
        else autoencoder.emit_vae_encoder
    )
    return Drawing(config.traits, autoencoder.num_parts(config), partial(half, config, tensors))


def _draw_qwen_text_encoder(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_text_config(component.config_file, component.config)
    tensors = _open(component, partial(open_text_tensors, config))
    emit = partial(qwen_text.emit_qwen_text_encoder, config, tensors)
    return Drawing(text_traits(config), qwen_text.num_parts(config), emit)


def _draw_qwen_transformer(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_qwen_transformer_config(component.config_file, component.config)
    tensors = _open(component, partial(open_qwen_transformer_tensors, config))
    emit = partial(qwen_image.emit_qwen_transformer, config, tensors)
    return Drawing(config.traits, qwen_image.num_parts(config), emit)


def _draw_qwen_vae(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_qwen_vae_config(component.config_file, component.config)
    tensors = _open(component, partial(open_qwen_vae_tensors, config))
    half = (
        qwen_vae.emit_qwen_vae_decoder
        if graph.kind == "vae_decoder"
        else qwen_vae.emit_qwen_vae_encoder
    )
    num_parts = qwen_vae.num_parts(config, graph.kind)
    return Drawing(config.traits, num_parts, partial(half, config, tensors))


def _open(component: Component, open_tensors: Callable[[TensorFiles], TensorFiles]) -> TensorFiles:
    """The tensors of a component; what is wrong with them is said with its name."""
    try:
        return open_tensors(component.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{component.name}: {error}") from None


COMPONENT_CLASSES: Mapping[str, Draw] = MappingProxyType(
    {
        "CLIPTextModel": _draw_clip,
        "CLIPTextModelWithProjection": _draw_clip,
        "T5EncoderModel": _draw_t5,
        "UNet2DConditionModel": _draw_unet,
        "SD3Transformer2DModel": _draw_sd3,
        "FluxTransformer2DModel": _draw_flux,
        "AutoencoderKL": _draw_vae,
        "Qwen2_5_VLForConditionalGeneration": _draw_qwen_text_encoder,
        "QwenImageTransformer2DModel": _draw_qwen_transformer,
        "AutoencoderKLQwenImage": _draw_qwen_vae,
    }
)

# The class of a text encoder -> how the tokenizer beside it is read.
TOKENIZERS: Mapping[str, ReadTokenizer] = MappingProxyType(
    {
        "CLIPTextModel": read_clip_tokenizer,
        "CLIPTextModelWithProjection": read_clip_tokenizer,
        "Qwen2_5_VLForConditionalGeneration": read_qwen_tokenizer,
        "T5EncoderModel": read_t5_tokenizer,
    }
)
