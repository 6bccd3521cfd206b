"""`UNetConfig`: config.json of a `UNet2DConditionModel`, in one spelling and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.fields import ConfigFields
from export.diffusion.timestep import Sinusoids
from export.diffusion.traits import DenoiserTraits, Width

_SAMPLE_SIZE = 64  # latents along a side, where the config does not say
NUM_TIME_IDS = 6  # original size, crop and target size, two numbers each

Depths = tuple[tuple[int, ...] | None, ...]

_MID_BLOCK = "UNetMidBlock2DCrossAttn"
_BLOCK_TYPES = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_SUPPORTED: dict[str, tuple[object, ...]] = {
    "act_fn": ("silu", "swish"),
    "mid_block_type": (_MID_BLOCK, "UNetMidBlock2D", None),
    "addition_embed_type": (None, "text_time"),
    "downsample_padding": (1, 0),
    "mid_block_scale_factor": (1,),
    "num_attention_heads": (None,),
    "center_input_sample": (False,),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "attention_type": ("default",),
}


@dataclass(frozen=True, slots=True)
class TextTimeEmbedding:
    """What SDXL adds to the time: the pooled prompt, and sizes as sinusoids.

    Attributes:
        time_ids: The waves of one number.
        text_width: The width of the pooled prompt.
    """

    time_ids: Sinusoids
    text_width: int

    @property
    def width(self) -> int:
        return self.text_width + NUM_TIME_IDS * self.time_ids.width


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """The shape of a UNet. A tuple has an entry for each level, the finest first.

    Attributes:
        num_heads: Attention heads. The checkpoint calls them `attention_head_dim`: the name is an
            old mistake that all checkpoints share.
        down_depths: Transformer blocks behind each of a level's residual blocks on the way down;
            None where the level has no attention.
        up_depths: The same for the way up, the finest level first.
        mid_depth: Transformer blocks in the middle; None where it has no attention.
        has_mid_block: Whether there is a middle at all.
        guidance_width: The width of the guidance embedding of distilled models (LCM), or None.
    """

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: tuple[int, ...]
    down_depths: Depths
    up_depths: Depths
    mid_depth: int | None
    has_mid_block: bool
    num_heads: tuple[int, ...]
    cross_attention_dim: int
    uses_linear_projection: bool
    norm_num_groups: int
    norm_eps: float
    downsample_padding: int
    conv_in_kernel: int
    conv_out_kernel: int
    time: Sinusoids
    time_embed_dim: int
    guidance_width: int | None
    text_time: TextTimeEmbedding | None

    @property
    def traits(self) -> DenoiserTraits:
        pooled = 0 if self.text_time is None else self.text_time.text_width
        return DenoiserTraits(
            context=Width("cross_attention_dim", self.cross_attention_dim),
            pooled=Width("text_embeds width", pooled),
            in_channels=Width("in_channels", self.in_channels),
            out_channels=Width("out_channels", self.out_channels),
            sample_size=_SAMPLE_SIZE,
            takes_sizes=self.text_time is not None,
            guidance="classifier-free" if self.guidance_width is None else "distilled",
            guidance_width=self.guidance_width,
        )


def read_unet_config(file: str, content: dict[str, Any]) -> UNetConfig:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require(_SUPPORTED)
    block_out_channels = fields.integers("block_out_channels")
    levels = len(block_out_channels)
    layers_per_block = fields.for_each("layers_per_block", levels, 2)
    down_depths, mid_depth, up_depths = _depths(fields, content, layers_per_block)
    config = UNetConfig(
        in_channels=fields.integer("in_channels", 4),
        out_channels=fields.integer("out_channels", 4),
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        down_depths=down_depths,
        up_depths=up_depths,
        mid_depth=mid_depth,
        has_mid_block=content.get("mid_block_type", _MID_BLOCK) is not None,
        num_heads=fields.for_each("attention_head_dim", levels, 8),
        cross_attention_dim=_cross_attention_dim(fields, levels),
        uses_linear_projection=fields.flag("use_linear_projection", False),
        norm_num_groups=fields.integer("norm_num_groups", 32),
        norm_eps=fields.number("norm_eps", 1e-5),
        downsample_padding=fields.integer("downsample_padding", 1, minimum=0),
        conv_in_kernel=_odd(fields, "conv_in_kernel"),
        conv_out_kernel=_odd(fields, "conv_out_kernel"),
        time=_sinusoids(fields, block_out_channels[0], "block_out_channels"),
        time_embed_dim=fields.optional_integer("time_embedding_dim") or 4 * block_out_channels[0],
        guidance_width=fields.optional_integer("time_cond_proj_dim"),
        text_time=_text_time(fields, content),
    )
    _check_divisions(fields, config)
    return config


def _depths(
    fields: ConfigFields, content: dict[str, Any], layers_per_block: tuple[int, ...]
) -> tuple[Depths, int | None, Depths]:
    """Transformer blocks behind each residual block: down, in the middle, and up."""
    on_the_way_up = tuple(num_layers + 1 for num_layers in layers_per_block)
    down = fields.nested("transformer_layers_per_block", layers_per_block, 1)
    if content.get("reverse_transformer_layers_per_block") is None:
        up = fields.nested("transformer_layers_per_block", on_the_way_up, 1)
    else:
        up = fields.nested("reverse_transformer_layers_per_block", on_the_way_up[::-1])[::-1]
    has_mid_attention = content.get("mid_block_type", _MID_BLOCK) == _MID_BLOCK
    return (
        _only_with_attention(fields, "down_block_types", down),
        down[-1][0] if has_mid_attention else None,
        _only_with_attention(fields, "up_block_types", up[::-1])[::-1],
    )


def _only_with_attention(
    fields: ConfigFields, name: str, depths: tuple[tuple[int, ...], ...]
) -> Depths:
    without_attention, with_attention = _BLOCK_TYPES[name]
    types = fields.names(name, (without_attention, with_attention))
    if len(types) != len(depths):
        raise fields.error(f"{len(types)} {name}, but {len(depths)} block_out_channels")
    return tuple(
        depth if block == with_attention else None
        for block, depth in zip(types, depths, strict=True)
    )


def _cross_attention_dim(fields: ConfigFields, levels: int) -> int:
    widths = fields.for_each("cross_attention_dim", levels, 1280)
    if len(set(widths)) > 1:
        raise fields.error(
            f"cross_attention_dim = {list(widths)}, but only one width for all blocks is supported"
        )
    return widths[0]


def _odd(fields: ConfigFields, name: str) -> int:
    kernel = fields.integer(name, 3)
    if kernel % 2 == 0:
        raise fields.error(f"{name} = {kernel}, but only odd kernels keep an image's size")
    return kernel


def _text_time(fields: ConfigFields, content: dict[str, Any]) -> TextTimeEmbedding | None:
    if content.get("addition_embed_type") is None:
        return None
    width = fields.integer("addition_time_embed_dim")
    text_width = fields.integer("projection_class_embeddings_input_dim") - NUM_TIME_IDS * width
    if text_width < 1:
        raise fields.error(
            f"projection_class_embeddings_input_dim with no room for {NUM_TIME_IDS} numbers of "
            f"{width} waves and a prompt"
        )
    return TextTimeEmbedding(_sinusoids(fields, width, "addition_time_embed_dim"), text_width)


def _sinusoids(fields: ConfigFields, width: int, name: str) -> Sinusoids:
    sinusoids = Sinusoids(
        width, fields.flag("flip_sin_to_cos", True), fields.number("freq_shift", 0)
    )
    if width % 2 or width / 2 <= sinusoids.freq_shift:
        raise fields.error(
            f"{name} that asks for {width} waves, which is not an even number of them"
        )
    return sinusoids


def _check_divisions(fields: ConfigFields, config: UNetConfig) -> None:
    deepest = len(config.block_out_channels) - 1
    for level, channels in enumerate(config.block_out_channels):
        if channels % config.norm_num_groups:
            raise fields.error(
                f"{channels} channels in a block, which is no multiple of norm_num_groups = "
                f"{config.norm_num_groups}"
            )
        has_attention = config.down_depths[level] or config.up_depths[level]
        if (has_attention or (level == deepest and config.mid_depth)) and (
            channels % config.num_heads[level]
        ):
            raise fields.error(
                f"{channels} channels in a block, which is no multiple of its attention heads, "
                f"attention_head_dim = {config.num_heads[level]}"
            )
