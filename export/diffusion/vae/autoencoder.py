"""The autoencoder's two graphs, between pictures and the latents that the denoiser works on.

Scaling is inside: the latents of both graphs are the denoiser's, of about unit variance.

Decoder: `latents` float32 [B, latent_channels, h, w] in; `images` float32
[B, out_channels, scale * h, scale * w] out, nominally -1 to 1 and not clipped.
Encoder: `images` float32 [B, in_channels, H, W] from -1 to 1 in; `latent_mean` and `latent_std`
float32 [B, latent_channels, H / scale, W / scale] out, so that mean + std * noise is a sample.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import Advance, LayerEmitter
from export.diffusion.vae.config import VAEConfig
from export.diffusion.vae.structure import VAEHalf, build_decoder, build_encoder
from export.graph import GraphBuilder, scalar
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles

_LOG_VARIANCE_LIMITS = (-30.0, 20.0)


def num_parts(config: VAEConfig) -> int:
    """How often the emission of one half advances."""
    return len(config.block_out_channels) + 1


def emit_vae_decoder(
    config: VAEConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit the decoder; `advance` is told each part that is done.

    Args:
        config: The autoencoder's shape.
        tensors: What `open_vae_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.
    """
    layers = LayerEmitter(graph, tensors, precision)
    latents = graph.input(
        "latents", "float32", ["batch", config.latent_channels, "height", "width"]
    )
    x = _constant_op(graph, "Div", latents, config.scaling_factor, "latents.scaled")
    if config.shift_factor:
        x = _constant_op(graph, "Add", x, config.shift_factor, "latents.shifted")
    if config.uses_post_quant_conv:
        x = layers.pointwise_convolution(x, "post_quant_conv")
    images = _emit_half(build_decoder(config), layers, x, advance)
    shape: list[int | str] = ["batch", config.out_channels, "image_height", "image_width"]
    graph.output(images, "images", "float32", shape)


def emit_vae_encoder(
    config: VAEConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit the encoder; the arguments are those of `emit_vae_decoder`."""
    layers = LayerEmitter(graph, tensors, precision)
    images = graph.input(
        "images", "float32", ["batch", config.in_channels, "image_height", "image_width"]
    )
    moments = _emit_half(build_encoder(config), layers, images, advance)
    if config.uses_quant_conv:
        moments = layers.pointwise_convolution(moments, "quant_conv")
    mean, log_variance = graph.ops(
        "Split", [moments], ["mean", "log_variance"], axis=1, num_outputs=2
    )
    if config.shift_factor:
        mean = _constant_op(graph, "Sub", mean, config.shift_factor, "mean.shifted")
    shape: list[int | str] = ["batch", config.latent_channels, "height", "width"]
    mean = _constant_op(graph, "Mul", mean, config.scaling_factor, "mean.scaled")
    graph.output(mean, "latent_mean", "float32", shape)
    graph.output(_std(graph, log_variance, config), "latent_std", "float32", shape)


def _emit_half(half: VAEHalf, layers: LayerEmitter, x: ir.Value, advance: Advance) -> ir.Value:
    hidden = layers.convolution(x, f"{half.name}.conv_in")
    for block in half.blocks:
        hidden = block.emit(layers, hidden)
        advance(block.resnets[0].name.rpartition(".resnets")[0])
    norm = half.norm
    normed = layers.group_norm(hidden, f"{half.name}.conv_norm_out", norm.num_groups, norm.epsilon)
    return layers.convolution(layers.silu(normed), f"{half.name}.conv_out")


def _std(graph: GraphBuilder, log_variance: ir.Value, config: VAEConfig) -> ir.Value:
    """exp(log_variance / 2), in the units of the denoiser."""
    low, high = (
        graph.constant(f"log_variance.limit_{index}", scalar(limit, np.float32))
        for index, limit in enumerate(_LOG_VARIANCE_LIMITS)
    )
    clipped = graph.op("Clip", [log_variance, low, high], "log_variance.clipped")
    half = _constant_op(graph, "Mul", clipped, 0.5, "log_std")
    std = graph.op("Exp", [half], "std")
    return _constant_op(graph, "Mul", std, config.scaling_factor, "std.scaled")


def _constant_op(
    graph: GraphBuilder, op_type: str, x: ir.Value, number: float, name: str
) -> ir.Value:
    constant = graph.constant(f"{name}.by", scalar(number, np.float32))
    return graph.op(op_type, [x, constant], name)
