"""The blocks of an autoencoder's two halves and their channels, from its config."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from export.diffusion.layers import LayerEmitter
from export.diffusion.resnet import Downsample, Normalization, Resnet, Upsample
from export.diffusion.shapes import Shapes, convolution_shapes, linear_shapes, norm_shapes
from export.diffusion.vae.config import VAEConfig

EPSILON = 1e-6
ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, slots=True)
class PixelAttention:
    """Every pixel looks at every other, with one head over all channels."""

    name: str
    channels: int
    norm: Normalization

    def tensors(self) -> Shapes:
        shapes = norm_shapes(f"{self.name}.group_norm", self.channels)
        for layer in ATTENTION_LAYERS:
            shapes |= linear_shapes(f"{self.name}.{layer}", self.channels, self.channels)
        return shapes

    def emit(self, layers: LayerEmitter, image: ir.Value) -> ir.Value:
        """[B, channels, H, W] in and out."""
        name, norm = self.name, self.norm
        normed = layers.group_norm(image, f"{name}.group_norm", norm.num_groups, norm.epsilon)
        to_rows = partial(layers.image_to_rows, name=name)
        rows = layers.moved(normed, f"{name}.{ATTENTION_LAYERS[0]}", to_rows)
        query, key, value = (
            layers.linear(rows, f"{name}.{layer}") for layer in ATTENTION_LAYERS[:3]
        )
        heads = layers.attention(query, key, value, name, 1, self.channels)
        attended = layers.linear(heads, f"{name}.{ATTENTION_LAYERS[3]}")
        return layers.add(layers.rows_to_image(attended, image, name), image, f"{name}.sum")


@dataclass(frozen=True, slots=True)
class VAEBlock:
    """Residual blocks, and what comes between the middle's or behind a level's."""

    resnets: tuple[Resnet, ...]
    attention: PixelAttention | None = None
    downsample: Downsample | None = None
    upsample: Upsample | None = None

    def tensors(self) -> Shapes:
        shapes: Shapes = {}
        for module in (*self.resnets, self.attention, self.downsample, self.upsample):
            if module is not None:
                shapes |= module.tensors()
        return shapes

    def emit(self, layers: LayerEmitter, hidden: ir.Value) -> ir.Value:
        for index, resnet in enumerate(self.resnets):
            hidden = resnet.emit(layers, hidden, time=None)
            if self.attention is not None and index == 0:
                hidden = self.attention.emit(layers, hidden)
        if self.downsample is not None:
            hidden = self.downsample.emit(layers, hidden)
        if self.upsample is not None:
            hidden = self.upsample.emit(layers, hidden)
        return hidden


@dataclass(frozen=True, slots=True)
class VAEHalf:
    """The encoder or the decoder: a convolution, blocks in their order, a norm, a convolution."""

    name: str
    in_channels: int
    out_channels: int
    blocks: tuple[VAEBlock, ...]
    norm: Normalization

    def tensors(self) -> Shapes:
        first = self.blocks[0].resnets[0].in_channels
        last = self.blocks[-1].resnets[-1].out_channels
        shapes = convolution_shapes(f"{self.name}.conv_in", self.in_channels, first)
        for block in self.blocks:
            shapes |= block.tensors()
        shapes |= norm_shapes(f"{self.name}.conv_norm_out", last)
        return shapes | convolution_shapes(f"{self.name}.conv_out", last, self.out_channels)


def build_encoder(config: VAEConfig) -> VAEHalf:
    """From a picture to the mean and the logarithm of the variance of its latents."""
    levels, norm = len(config.block_out_channels), _norm(config)
    blocks = []
    for level, channels in enumerate(config.block_out_channels):
        name = f"encoder.down_blocks.{level}"
        came_in = config.block_out_channels[max(level - 1, 0)]
        downsample = Downsample(f"{name}.downsamplers.0", channels, padding=0)
        blocks.append(
            VAEBlock(
                _resnets(name, came_in, channels, config.layers_per_block, norm),
                downsample=downsample if level < levels - 1 else None,
            )
        )
    blocks.append(_mid_block(config, "encoder.mid_block"))
    num_out = 2 * config.latent_channels
    return VAEHalf("encoder", config.in_channels, num_out, tuple(blocks), norm)


def build_decoder(config: VAEConfig) -> VAEHalf:
    """From latents to a picture; blocks are counted from the coarsest level."""
    levels, norm = len(config.block_out_channels), _norm(config)
    blocks = [_mid_block(config, "decoder.mid_block")]
    came_in = config.block_out_channels[-1]
    for index, channels in enumerate(reversed(config.block_out_channels)):
        name = f"decoder.up_blocks.{index}"
        upsample = Upsample(f"{name}.upsamplers.0", channels)
        blocks.append(
            VAEBlock(
                _resnets(name, came_in, channels, config.layers_per_block + 1, norm),
                upsample=upsample if index < levels - 1 else None,
            )
        )
        came_in = channels
    return VAEHalf("decoder", config.latent_channels, config.out_channels, tuple(blocks), norm)


def encoder_tensors(config: VAEConfig) -> Shapes:
    """Every tensor that the encoder's graph reads."""
    shapes = build_encoder(config).tensors()
    if config.uses_quant_conv:
        width = 2 * config.latent_channels
        shapes |= convolution_shapes("quant_conv", width, width, kernel=1)
    return shapes


def decoder_tensors(config: VAEConfig) -> Shapes:
    """Every tensor that the decoder's graph reads."""
    shapes = build_decoder(config).tensors()
    if config.uses_post_quant_conv:
        width = config.latent_channels
        shapes |= convolution_shapes("post_quant_conv", width, width, kernel=1)
    return shapes


def _norm(config: VAEConfig) -> Normalization:
    return Normalization(config.norm_num_groups, EPSILON)


def _mid_block(config: VAEConfig, name: str) -> VAEBlock:
    channels, norm = config.block_out_channels[-1], _norm(config)
    attention = PixelAttention(f"{name}.attentions.0", channels, norm)
    return VAEBlock(
        _resnets(name, channels, channels, 2, norm),
        attention=attention if config.has_mid_attention else None,
    )


def _resnets(
    block: str, num_in: int, num_out: int, num_layers: int, norm: Normalization
) -> tuple[Resnet, ...]:
    return tuple(
        Resnet(f"{block}.resnets.{layer}", num_in if layer == 0 else num_out, num_out, None, norm)
        for layer in range(num_layers)
    )
