"""Compile an opened diffusers checkpoint into graphs, one component after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from engines import __version__
from engines.manifest import FileEntry
from export.diffusion.checkpoint import Component, DiffusionCheckpoint
from export.diffusion.clip import text_encoder
from export.diffusion.clip.config import TextEncoderConfig, read_text_encoder_config
from export.diffusion.clip.tensors import open_text_encoder_tensors
from export.diffusion.layers import Advance
from export.diffusion.pipelines import PipelineGraph
from export.diffusion.unet import unet
from export.diffusion.unet.config import UNetConfig, read_unet_config
from export.diffusion.unet.tensors import open_unet_tensors
from export.diffusion.vae import autoencoder
from export.diffusion.vae.config import VAEConfig, read_vae_config
from export.diffusion.vae.tensors import open_vae_tensors
from export.errors import CheckpointError
from export.graph import GraphBuilder
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles
from export.weights import WeightsFile, file_entry

ComponentConfig = TextEncoderConfig | UNetConfig | VAEConfig


class Emit(Protocol):
    """Emits one component into a graph."""

    def __call__(
        self, *, graph: GraphBuilder, precision: LayoutChooser, advance: Advance
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class ComponentGraph:
    """A graph whose component was checked; nothing has been written yet.

    Attributes:
        name: The graph's name; its files are `{name}.onnx` and `{name}.onnx.data`.
        component: The component whose weights it takes.
        config: That component's config.
        num_parts: How often its emission advances.
        emit: Draws it.
    """

    name: str
    component: str
    config: ComponentConfig
    num_parts: int
    emit: Emit


def plan_graphs(checkpoint: DiffusionCheckpoint) -> tuple[ComponentGraph, ...]:
    """Check everything that can be checked before the first byte is written.

    Raises:
        CheckpointError: A component cannot be compiled, or does not fit the others.
    """
    components = checkpoint.components
    graphs = tuple(
        plan_component(graph, components[graph.component]) for graph in checkpoint.pipeline.graphs
    )
    check_widths({graph.component: graph.config for graph in graphs})
    return graphs


def plan_component(graph: PipelineGraph, component: Component) -> ComponentGraph:
    """Check one component for one of its graphs.

    Raises:
        CheckpointError: It cannot be compiled.
    """
    config = _read_config(component)
    try:
        tensors = _open_tensors(config, component.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{component.name}: {error}") from None
    num_parts, emit = _emitter(graph, config, tensors)
    return ComponentGraph(graph.name, graph.component, config, num_parts, emit)


def compile_component(
    graph: ComponentGraph, folder: Path, precision: LayoutChooser, advance: Advance
) -> dict[str, FileEntry]:
    """Write one graph and its weights; return the entries of both files for the manifest.

    An `OSError` of the disk passes through: the caller knows what to remove.

    Raises:
        CheckpointError: A tensor holds NaN or infinity, or its file was cut short meanwhile.
        ValueError: A node is to have a layout that it cannot have.
    """
    graph_path = folder / f"{graph.name}.onnx"
    weights_path = folder / f"{graph.name}.onnx.data"
    with WeightsFile(weights_path) as weights:
        builder = GraphBuilder(weights, graph.name)
        try:
            graph.emit(graph=builder, precision=precision, advance=advance)
        except CheckpointError as error:
            raise CheckpointError(f"{graph.component}: {error}") from None
        builder.save(graph_path, __version__)
        return {graph_path.name: file_entry(graph_path), weights_path.name: weights.finish()}


def check_widths(configs: Mapping[str, ComponentConfig]) -> None:
    """Check that what one component gives is what the next one takes.

    Raises:
        CheckpointError: It is not; the message names both.
    """
    unet_config, vae_config = configs["unet"], configs["vae"]
    assert isinstance(unet_config, UNetConfig)
    assert isinstance(vae_config, VAEConfig)
    encoders = [config for config in configs.values() if isinstance(config, TextEncoderConfig)]
    context = sum(encoder.hidden_size for encoder in encoders)
    projected = sum(encoder.projection_dim or 0 for encoder in encoders)
    pooled = 0 if unet_config.text_time is None else unet_config.text_time.text_width
    latents = vae_config.latent_channels
    _require_width("cross_attention_dim", unet_config.cross_attention_dim, "text rows", context)
    _require_width("text_embeds width", pooled, "projected text", projected)
    _require_width("in_channels", unet_config.in_channels, "latent channels", latents)
    _require_width("out_channels", unet_config.out_channels, "latent channels", latents)


def _require_width(field: str, width: int, what: str, given: int) -> None:
    if width != given:
        raise CheckpointError(
            f"unet/config.json has {field} = {width}, but the other components' configs have "
            f"{what} of {given}"
        )


def _read_config(component: Component) -> ComponentConfig:
    file, content = component.config_file, component.config
    match component.class_name:
        case "UNet2DConditionModel":
            return read_unet_config(file, content)
        case "AutoencoderKL":
            return read_vae_config(file, content)
        case "CLIPTextModelWithProjection":
            return read_text_encoder_config(file, content, has_projection=True)
        case _:
            return read_text_encoder_config(file, content, has_projection=False)


def _open_tensors(config: ComponentConfig, files: TensorFiles) -> TensorFiles:
    if isinstance(config, UNetConfig):
        return open_unet_tensors(config, files)
    if isinstance(config, VAEConfig):
        return open_vae_tensors(config, files)
    return open_text_encoder_tensors(config, files)


def _emitter(
    graph: PipelineGraph, config: ComponentConfig, tensors: TensorFiles
) -> tuple[int, Emit]:
    """The number of parts, and what emits them."""
    if isinstance(config, TextEncoderConfig):
        return text_encoder.num_parts(config, graph.hidden_state), partial(
            text_encoder.emit_text_encoder, config, tensors, hidden_state=graph.hidden_state
        )
    if isinstance(config, UNetConfig):
        return unet.num_parts(config), partial(unet.emit_unet, config, tensors)
    half = (
        autoencoder.emit_vae_decoder
        if graph.kind == "vae_decoder"
        else autoencoder.emit_vae_encoder
    )
    return autoencoder.num_parts(config), partial(half, config, tensors)
