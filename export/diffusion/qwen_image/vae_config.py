"""`QwenVAEConfig`: config.json of an `AutoencoderKLQwenImage`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.fields import ConfigFields
from export.diffusion.traits import VAETraits

_SUPPORTED: dict[str, tuple[object, ...]] = {"attn_scales": ([], None)}


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenVAEConfig:
    """The shape of an autoencoder; levels are counted from the finest.

    Attributes:
        level_channels: Channels of each level.
        layers_per_level: Residual blocks of a level of the encoder; the decoder has one more.
        latents_mean: Of each latent channel; the denoiser wants mean 0 and deviation 1.
        latents_std: Of each latent channel.
    """

    picture_channels: int
    latent_channels: int
    base_channels: int
    level_channels: tuple[int, ...]
    layers_per_level: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]

    @property
    def traits(self) -> VAETraits:
        return VAETraits(
            picture_channels=(self.picture_channels, self.picture_channels),
            latent_channels=self.latent_channels,
            scale=2 ** (len(self.level_channels) - 1),
        )


def read_qwen_vae_config(file: str, content: dict[str, Any]) -> QwenVAEConfig:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require(_SUPPORTED)
    base_channels = fields.integer("base_dim", 96)
    multiples = fields.integers("dim_mult")
    halvings = content.get("temperal_downsample")
    if not isinstance(halvings, list) or len(halvings) != len(multiples) - 1:
        raise fields.error(
            f"temperal_downsample = {halvings!r}, but its {len(multiples)} levels need "
            f"{len(multiples) - 1} entries"
        )
    latent_channels = fields.integer("z_dim", 16)
    config = QwenVAEConfig(
        picture_channels=fields.integer("input_channels", 3),
        latent_channels=latent_channels,
        base_channels=base_channels,
        level_channels=tuple(base_channels * multiple for multiple in multiples),
        layers_per_level=fields.integer("num_res_blocks", 2),
        latents_mean=_for_each_channel(fields, "latents_mean", latent_channels),
        latents_std=_for_each_channel(fields, "latents_std", latent_channels),
    )
    if odd := [channels for channels in config.level_channels[1:] if channels % 2]:
        raise fields.error(f"a level of {odd[0]} channels, which is odd and cannot be halved")
    if min(config.latents_std) <= 0:
        raise fields.error(f"latents_std with {min(config.latents_std)}, which is not above 0")
    return config


def _for_each_channel(fields: ConfigFields, name: str, count: int) -> tuple[float, ...]:
    numbers = fields.numbers(name)
    if len(numbers) != count:
        raise fields.error(f"{len(numbers)} numbers in {name}, but {count} latent channels")
    return numbers
