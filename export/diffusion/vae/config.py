"""`VAEConfig`: config.json of an `AutoencoderKL`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.fields import ConfigFields
from export.diffusion.traits import VAETraits

_BLOCK_TYPES = {
    "down_block_types": "DownEncoderBlock2D",
    "up_block_types": "UpDecoderBlock2D",
}
_SUPPORTED: dict[str, tuple[object, ...]] = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """The shape of an autoencoder; levels are counted from the finest.

    Attributes:
        scaling_factor: What latents are multiplied by for the denoiser, which wants them of unit
            variance.
        shift_factor: What is taken from them before.
    """

    in_channels: int
    out_channels: int
    latent_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_num_groups: int
    uses_quant_conv: bool
    uses_post_quant_conv: bool
    has_mid_attention: bool
    scaling_factor: float
    shift_factor: float

    @property
    def scale(self) -> int:
        """Pixels that one latent stands for, along each side."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def traits(self) -> VAETraits:
        return VAETraits(
            picture_channels=(self.in_channels, self.out_channels),
            latent_channels=self.latent_channels,
            scale=self.scale,
        )


def read_vae_config(file: str, content: dict[str, Any]) -> VAEConfig:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require(_SUPPORTED)
    block_out_channels = fields.integers("block_out_channels")
    for name, block in _BLOCK_TYPES.items():
        types = fields.names(name, (block,))
        if len(types) != len(block_out_channels):
            raise fields.error(
                f"{len(types)} {name}, but {len(block_out_channels)} block_out_channels"
            )
    config = VAEConfig(
        in_channels=fields.integer("in_channels", 3),
        out_channels=fields.integer("out_channels", 3),
        latent_channels=fields.integer("latent_channels", 4),
        block_out_channels=block_out_channels,
        layers_per_block=fields.integer("layers_per_block", 1),
        norm_num_groups=fields.integer("norm_num_groups", 32),
        uses_quant_conv=fields.flag("use_quant_conv", True),
        uses_post_quant_conv=fields.flag("use_post_quant_conv", True),
        has_mid_attention=fields.flag("mid_block_add_attention", True),
        scaling_factor=fields.number("scaling_factor", 0.18215),
        shift_factor=0.0 if content.get("shift_factor") is None else fields.number("shift_factor"),
    )
    for channels in block_out_channels:
        if channels % config.norm_num_groups:
            raise fields.error(
                f"{channels} channels in a block, which is no multiple of norm_num_groups = "
                f"{config.norm_num_groups}"
            )
    if config.scaling_factor <= 0:
        raise fields.error(f"scaling_factor = {config.scaling_factor}, which is not above 0")
    return config
