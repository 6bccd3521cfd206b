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
from export.diffusion.layers import Advance
from export.diffusion.pipelines import PipelineGraph
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
    """

    traits: Traits
    num_parts: int
    emit: Emit


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


def _draw_unet(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_unet_config(component.config_file, component.config)
    tensors = _open(component, partial(open_unet_tensors, config))
    return Drawing(config.traits, unet.num_parts(config), partial(unet.emit_unet, config, tensors))


def _draw_vae(graph: PipelineGraph, component: Component) -> Drawing:
    config = read_vae_config(component.config_file, component.config)
    tensors = _open(component, partial(open_vae_tensors, config))
    half = (
        autoencoder.emit_vae_decoder
        if graph.kind == "vae_decoder"
        else autoencoder.emit_vae_encoder
    )
    return Drawing(config.traits, autoencoder.num_parts(config), partial(half, config, tensors))


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
        "UNet2DConditionModel": _draw_unet,
        "AutoencoderKL": _draw_vae,
    }
)

# The class of a text encoder -> how the tokenizer beside it is read.
TOKENIZERS: Mapping[str, ReadTokenizer] = MappingProxyType(
    {
        "CLIPTextModel": read_clip_tokenizer,
        "CLIPTextModelWithProjection": read_clip_tokenizer,
    }
)
