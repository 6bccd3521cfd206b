"""The autoencoder's graphs for single pictures: latents in and a picture out, and the way back.

Decoder: `latents` float32 [B, latent_channels, h, w], in the units of the denoiser, to `images`
float32 [B, channels, h * scale, w * scale] between -1 and 1.
Encoder: `images` to `latent_mean` and `latent_std`, both float32 [B, latent_channels, h, w]: the
latents of a picture are `latent_mean + latent_std * noise`, in the units of the denoiser.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import Advance, LayerEmitter
from export.diffusion.qwen_image.vae_config import QwenVAEConfig
from export.diffusion.qwen_image.vae_layers import rms_norm
from export.diffusion.qwen_image.vae_structure import VAEHalf, build_decoder, build_encoder
from export.graph import GraphBuilder, scalar
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles

_LOG_VARIANCE_LIMITS = (-30.0, 20.0)
_PICTURE_LIMITS = (-1.0, 1.0)


def num_parts(config: QwenVAEConfig, kind: str) -> int:
    """How often the emission of one half advances."""
    half = build_decoder(config) if kind == "vae_decoder" else build_encoder(config)
    return len(half.modules)


def emit_qwen_vae_decoder(
    config: QwenVAEConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit the decoder; `advance` is told each part that is done.

    Args:
        config: The autoencoder's shape.
        tensors: What `open_qwen_vae_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.
    """
    layers = LayerEmitter(graph, tensors, precision)
    latents = graph.input(
        "latents", "float32", ["batch", config.latent_channels, "height", "width"]
    )
    deviation = graph.constant("latents_std", _by_channel(config.latents_std))
    mean = graph.constant("latents_mean", _by_channel(config.latents_mean))
    x = graph.op("Mul", [latents, deviation], "latents.scaled")
    x = layers.add(x, mean, "latents.shifted")
    x = layers.pointwise_convolution(x, "post_quant_conv")
    images = _emit_half(build_decoder(config), layers, x, advance)
    images = _clip(graph, images, _PICTURE_LIMITS, "images.clipped")
    shape: list[int | str] = ["batch", config.picture_channels, "image_height", "image_width"]
    graph.output(images, "images", "float32", shape)


def emit_qwen_vae_encoder(
    config: QwenVAEConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit the encoder; the arguments are those of `emit_qwen_vae_decoder`."""
    layers = LayerEmitter(graph, tensors, precision)
    images = graph.input(
        "images", "float32", ["batch", config.picture_channels, "image_height", "image_width"]
    )
    moments = _emit_half(build_encoder(config), layers, images, advance)
    moments = layers.pointwise_convolution(moments, "quant_conv")
    mean, log_variance = graph.ops(
        "Split", [moments], ["mean", "log_variance"], axis=1, num_outputs=2
    )
    channel_mean = graph.constant("latents_mean", _by_channel(config.latents_mean))
    channel_std = graph.constant("latents_std", _by_channel(config.latents_std))
    centred = graph.op("Sub", [mean, channel_mean], "mean.centred")
    clipped = _clip(graph, log_variance, _LOG_VARIANCE_LIMITS, "log_variance.clipped")
    half = graph.constant("half", scalar(0.5, np.float32))
    std = graph.op("Exp", [graph.op("Mul", [clipped, half], "log_std")], "std")
    shape: list[int | str] = ["batch", config.latent_channels, "height", "width"]
    for value, name in ((centred, "latent_mean"), (std, "latent_std")):
        scaled = graph.op("Div", [value, channel_std], f"{name}.scaled")
        graph.output(scaled, name, "float32", shape)


def _emit_half(half: VAEHalf, layers: LayerEmitter, x: ir.Value, advance: Advance) -> ir.Value:
    hidden = layers.convolution(x, f"{half.name}.conv_in")
    for module in half.modules:
        hidden = module.emit(layers, hidden)
        advance(module.name)
    normed = rms_norm(layers, hidden, f"{half.name}.norm_out")
    return layers.convolution(layers.silu(normed), f"{half.name}.conv_out")


def _clip(graph: GraphBuilder, x: ir.Value, limits: tuple[float, float], name: str) -> ir.Value:
    low, high = (
        graph.constant(f"{name}.limit_{index}", scalar(limit, np.float32))
        for index, limit in enumerate(limits)
    )
    return graph.op("Clip", [x, low, high], name)


def _by_channel(numbers: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(numbers, np.float32).reshape(-1, 1, 1)
