"""FLUX's transformer: noisy latents, a time for each of them and a prompt in, the flow out.

Inputs: `sample` float32 [B, latent_channels, H, W], not packed, H and W even; `timestep` float32
[B], 0 to 1000; `encoder_hidden_states` float32 [B, T, joint_attention_dim]; `text_embeds` float32
[B, pooled_projection_dim]; for models with distilled guidance also `guidance` float32 [B].
Output: `model_output` float32 [B, latent_channels, H, W]. Rows do not see each other.
"""

from __future__ import annotations

import onnx_ir as ir

from export.diffusion.dit.attention import split_rows
from export.diffusion.dit.modulation import final_norm
from export.diffusion.dit.patches import join_patches, split_patches
from export.diffusion.dit.rotation import Rotation, emit_rotation
from export.diffusion.flux.config import PATCH_SIZE, FluxConfig, flux_tensors
from export.diffusion.layers import Advance, LayerEmitter
from export.graph import GraphBuilder
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles


def open_flux_tensors(config: FluxConfig, files: TensorFiles) -> TensorFiles:
    """Check every tensor.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    shapes = flux_tensors(config)
    for name, shape in shapes.items():
        files.require(name, shape)
    return TensorFiles({name: files.stored(name) for name in shapes})


def num_parts(config: FluxConfig) -> int:
    """How often an emission advances."""
    return config.num_layers + config.num_single_layers + 1


def emit_flux_transformer(
    config: FluxConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit everything; `advance` is told each part that is done.

    Args:
        config: The transformer's shape.
        tensors: What `open_flux_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.
    """
    layers = LayerEmitter(graph, tensors, precision)
    num_in, num_out = (n // PATCH_SIZE**2 for n in (config.in_channels, config.out_channels))
    sample = graph.input("sample", "float32", ["batch", num_in, "height", "width"])
    timestep = graph.input("timestep", "float32", ["batch"])
    context = graph.input(
        "encoder_hidden_states", "float32", ["batch", "num_tokens", config.context_dim]
    )
    pooled = graph.input("text_embeds", "float32", ["batch", config.pooled_dim])
    guidance = graph.input("guidance", "float32", ["batch"]) if config.has_guidance else None
    embedding = config.embedding
    time = embedding.emit(layers, embedding.as_fraction(layers, timestep), pooled, guidance)
    patches, grid = split_patches(layers, sample, num_in, PATCH_SIZE)
    image = layers.linear(patches, "x_embedder")
    text = layers.linear(context, "context_embedder")
    rotation = emit_rotation(layers, text, grid, config.axes)
    image = _emit_blocks(config, layers, image, text, time, rotation, advance)
    output = layers.linear(final_norm(layers, image, time, "norm_out"), "proj_out")
    joined = join_patches(layers, output, grid, num_out, PATCH_SIZE)
    graph.output(joined, "model_output", "float32", ["batch", num_out, "height", "width"])
    advance("output")


def _emit_blocks(
    config: FluxConfig,
    layers: LayerEmitter,
    image: ir.Value,
    text: ir.Value,
    time: ir.Value,
    rotation: Rotation,
    advance: Advance,
) -> ir.Value:
    """What all blocks make of the image's rows, [B, S, width] in and out."""
    for number, block in enumerate(config.blocks):
        image, text = block.emit(layers, image, text, time, rotation)
        advance(f"block {number + 1} of {config.num_layers}")
    rows = layers.graph.op("Concat", [text, image], "text_and_image", axis=1)
    for number, single in enumerate(config.single_blocks):
        rows = single.emit(layers, rows, time, rotation)
        advance(f"single block {number + 1} of {config.num_single_layers}")
    _, image = split_rows(layers, rows, text, "last")
    return image
