"""The order of the blocks in both halves of the autoencoder, from its config."""

from __future__ import annotations

from dataclasses import dataclass

from export.diffusion.qwen_image.vae_config import QwenVAEConfig
from export.diffusion.qwen_image.vae_layers import (
    Double,
    Halve,
    PixelAttention,
    ResidualBlock,
    VAEModule,
    rms_norm_shapes,
)
from export.diffusion.shapes import Shapes, convolution_shapes


@dataclass(frozen=True, slots=True)
class VAEHalf:
    """The encoder or the decoder: a convolution, blocks in their order, a norm, a convolution.

    Attributes:
        name: The module's path.
        in_channels: Channels that it reads.
        first_channels: Channels of the first block.
        modules: The blocks.
        last_channels: Channels of the last block.
        out_channels: Channels that it gives.
    """

    name: str
    in_channels: int
    first_channels: int
    modules: tuple[VAEModule, ...]
    last_channels: int
    out_channels: int

    def tensors(self) -> Shapes:
        shapes = convolution_shapes(f"{self.name}.conv_in", self.in_channels, self.first_channels)
        for module in self.modules:
            shapes |= module.tensors()
        shapes |= rms_norm_shapes(f"{self.name}.norm_out", self.last_channels)
        return shapes | convolution_shapes(
            f"{self.name}.conv_out", self.last_channels, self.out_channels
        )


def build_encoder(config: QwenVAEConfig) -> VAEHalf:
    """From a picture to the mean and the logarithm of the variance of its latents."""
    modules: list[VAEModule] = []
    came_in = config.base_channels
    for level, channels in enumerate(config.level_channels):
        for layer in range(config.layers_per_level):
            name = f"encoder.down_blocks.{len(modules)}"  # blocks of all levels are one list
            modules.append(ResidualBlock(name, came_in if layer == 0 else channels, channels))
        if level < len(config.level_channels) - 1:
            modules.append(Halve(f"encoder.down_blocks.{len(modules)}", channels))
        came_in = channels
    modules += _middle("encoder.mid_block", came_in)
    num_out = 2 * config.latent_channels
    return VAEHalf(
        "encoder", config.picture_channels, config.base_channels, tuple(modules), came_in, num_out
    )


def build_decoder(config: QwenVAEConfig) -> VAEHalf:
    """From latents to a picture; blocks are counted from the coarsest level."""
    first = came_in = config.level_channels[-1]
    modules = _middle("decoder.mid_block", first)
    for index, channels in enumerate(reversed(config.level_channels)):
        name = f"decoder.up_blocks.{index}"
        for layer in range(config.layers_per_level + 1):
            came = came_in if layer == 0 else channels
            modules.append(ResidualBlock(f"{name}.resnets.{layer}", came, channels))
        if index < len(config.level_channels) - 1:
            modules.append(Double(f"{name}.upsamplers.0", channels))
        came_in = channels // 2
    return VAEHalf(
        "decoder",
        config.latent_channels,
        first,
        tuple(modules),
        config.level_channels[0],
        config.picture_channels,
    )


def encoder_tensors(config: QwenVAEConfig) -> Shapes:
    """Every tensor that the encoder's graph reads."""
    width = 2 * config.latent_channels
    return build_encoder(config).tensors() | convolution_shapes("quant_conv", width, width, 1)


def decoder_tensors(config: QwenVAEConfig) -> Shapes:
    """Every tensor that the decoder's graph reads."""
    width = config.latent_channels
    return build_decoder(config).tensors() | convolution_shapes("post_quant_conv", width, width, 1)


def _middle(name: str, channels: int) -> list[VAEModule]:
    return [
        ResidualBlock(f"{name}.resnets.0", channels, channels),
        PixelAttention(f"{name}.attentions.0", channels),
        ResidualBlock(f"{name}.resnets.1", channels, channels),
    ]
