"""`FluxConfig`: config.json of a `FluxTransformer2DModel`, checked, and its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.dit.attention import Heads
from export.diffusion.dit.block import JointBlock
from export.diffusion.dit.embedding import TimeTextEmbedding
from export.diffusion.fields import ConfigFields
from export.diffusion.flux.single_block import SingleBlock
from export.diffusion.shapes import Shapes, linear_shapes
from export.diffusion.traits import DenoiserTraits, Width

PATCH_SIZE = 2  # the pipeline packs so many latents a side, and the config speaks of packed ones

_SAMPLE_SIZE = 128
_MAX_TEXT_TOKENS = {True: 512, False: 256}  # with guidance (dev), and distilled to few steps


@dataclass(frozen=True, slots=True, kw_only=True)
class FluxConfig:
    """The shape of a transformer.

    Attributes:
        in_channels: Channels of packed latents.
        num_layers: Blocks with layers of their own for image and text.
        num_single_layers: Blocks behind them, which see both as the same.
        context_dim: The width of the prompt's rows.
        axes: Numbers of a head that turn with frame, row and column.
        has_guidance: Whether the guidance scale is told.
    """

    in_channels: int
    out_channels: int
    num_layers: int
    num_single_layers: int
    heads: Heads
    context_dim: int
    pooled_dim: int
    axes: tuple[int, int, int]
    has_guidance: bool

    @property
    def width(self) -> int:
        return self.heads.total_width

    @property
    def blocks(self) -> tuple[JointBlock, ...]:
        return tuple(
            JointBlock(f"transformer_blocks.{layer}", self.heads)
            for layer in range(self.num_layers)
        )

    @property
    def single_blocks(self) -> tuple[SingleBlock, ...]:
        return tuple(
            SingleBlock(f"single_transformer_blocks.{layer}", self.heads)
            for layer in range(self.num_single_layers)
        )

    @property
    def embedding(self) -> TimeTextEmbedding:
        return TimeTextEmbedding(self.width, self.pooled_dim, self.has_guidance)

    @property
    def traits(self) -> DenoiserTraits:
        return DenoiserTraits(
            context=Width("joint_attention_dim", self.context_dim),
            pooled=Width("pooled_projection_dim", self.pooled_dim),
            in_channels=Width("in_channels", self.in_channels),
            out_channels=Width("out_channels", self.out_channels),
            channels_per_latent=PATCH_SIZE**2,
            patch_size=PATCH_SIZE,
            sample_size=_SAMPLE_SIZE,
            max_text_tokens=_MAX_TEXT_TOKENS[self.has_guidance],
            guidance="distilled" if self.has_guidance else "none",
        )


def read_flux_config(file: str, content: dict[str, Any]) -> FluxConfig:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require({"patch_size": (1,)})
    in_channels = fields.integer("in_channels", 64)
    config = FluxConfig(
        in_channels=in_channels,
        out_channels=fields.optional_integer("out_channels") or in_channels,
        num_layers=fields.integer("num_layers", 19),
        num_single_layers=fields.integer("num_single_layers", 38),
        heads=Heads(
            fields.integer("num_attention_heads", 24),
            fields.integer("attention_head_dim", 128),
            normalized=True,
        ),
        context_dim=fields.integer("joint_attention_dim", 4096),
        pooled_dim=fields.integer("pooled_projection_dim", 768),
        axes=_axes(fields, content),
        has_guidance=fields.flag("guidance_embeds", False),
    )
    if sum(config.axes) != config.heads.width:
        raise fields.error(
            f"axes_dims_rope = {list(config.axes)}, but their sum must be attention_head_dim = "
            f"{config.heads.width}"
        )
    for name, channels in (("in", config.in_channels), ("out", config.out_channels)):
        if channels % PATCH_SIZE**2:
            raise fields.error(
                f"{name}_channels = {channels}, which is no multiple of {PATCH_SIZE**2}, the "
                "latents of a patch"
            )
    return config


def flux_tensors(config: FluxConfig) -> Shapes:
    """Every tensor of the checkpoint that the graph reads."""
    width = config.width
    shapes = linear_shapes("x_embedder", config.in_channels, width)
    shapes |= linear_shapes("context_embedder", config.context_dim, width)
    shapes |= config.embedding.tensors()
    for block in config.blocks:
        shapes |= block.tensors()
    for single in config.single_blocks:
        shapes |= single.tensors()
    shapes |= linear_shapes("norm_out.linear", width, 2 * width)
    return shapes | linear_shapes("proj_out", width, config.out_channels)


def _axes(fields: ConfigFields, content: dict[str, Any]) -> tuple[int, int, int]:
    if "axes_dims_rope" not in content:
        return 16, 56, 56
    axes = fields.integers("axes_dims_rope")
    if len(axes) != 3 or any(axis % 2 for axis in axes):
        raise fields.error(
            f"axes_dims_rope = {list(axes)}, but it must be three even numbers, for frame, row "
            "and column"
        )
    return axes[0], axes[1], axes[2]
