"""`SD3Config`: config.json of an `SD3Transformer2DModel`, checked, and its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.dit.attention import Heads
from export.diffusion.dit.block import JointBlock
from export.diffusion.dit.embedding import TimeTextEmbedding
from export.diffusion.fields import ConfigFields
from export.diffusion.shapes import Shapes, convolution_shapes, linear_shapes
from export.diffusion.traits import DenoiserTraits, Width

POSITIONS = "pos_embed.pos_embed"
PATCHES = "pos_embed.proj"

_MAX_TEXT_TOKENS = 256
_RMS_NORM = "rms_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class SD3Config:
    """The shape of a transformer.

    Attributes:
        context_dim: The width of the prompt's rows.
        max_patches: Patches along a side that the table of positions holds.
        dual_layers: Blocks whose image rows also see each other alone.
    """

    patch_size: int
    in_channels: int
    out_channels: int
    num_layers: int
    heads: Heads
    context_dim: int
    pooled_dim: int
    max_patches: int
    dual_layers: tuple[int, ...]
    sample_size: int

    @property
    def width(self) -> int:
        return self.heads.total_width

    @property
    def blocks(self) -> tuple[JointBlock, ...]:
        return tuple(
            JointBlock(
                f"transformer_blocks.{layer}",
                self.heads,
                is_last=layer == self.num_layers - 1,
                has_image_attention=layer in self.dual_layers,
            )
            for layer in range(self.num_layers)
        )

    @property
    def embedding(self) -> TimeTextEmbedding:
        return TimeTextEmbedding(self.width, self.pooled_dim)

    @property
    def traits(self) -> DenoiserTraits:
        return DenoiserTraits(
            context=Width("joint_attention_dim", self.context_dim),
            pooled=Width("pooled_projection_dim", self.pooled_dim),
            in_channels=Width("in_channels", self.in_channels),
            out_channels=Width("out_channels", self.out_channels),
            patch_size=self.patch_size,
            sample_size=self.sample_size,
            max_side=self.max_patches * self.patch_size,
            max_text_tokens=_MAX_TEXT_TOKENS,
        )


def read_sd3_config(file: str, content: dict[str, Any]) -> SD3Config:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require({"qk_norm": (None, _RMS_NORM)})
    heads = Heads(
        fields.integer("num_attention_heads", 18),
        fields.integer("attention_head_dim", 64),
        normalized=content.get("qk_norm") == _RMS_NORM,
    )
    in_channels = fields.integer("in_channels", 16)
    config = SD3Config(
        patch_size=fields.integer("patch_size", 2),
        in_channels=in_channels,
        out_channels=fields.optional_integer("out_channels") or in_channels,
        num_layers=fields.integer("num_layers", 18),
        heads=heads,
        context_dim=fields.integer("joint_attention_dim", 4096),
        pooled_dim=fields.integer("pooled_projection_dim", 2048),
        max_patches=fields.integer("pos_embed_max_size", 96),
        dual_layers=_dual_layers(fields, content),
        sample_size=fields.integer("sample_size", 128),
    )
    if fields.integer("caption_projection_dim", 1152) != config.width:
        raise fields.error(
            f"caption_projection_dim = {content.get('caption_projection_dim')}, but its "
            f"{heads.count} attention heads of {heads.width} make rows of {config.width}"
        )
    if config.width % 4:
        raise fields.error(
            f"{heads.count} attention heads of {heads.width}, but a position takes sines and "
            "cosines of two coordinates, so the width must be a multiple of 4"
        )
    return config


def sd3_tensors(config: SD3Config) -> Shapes:
    """Every tensor of the checkpoint that the graph reads."""
    width, size = config.width, config.patch_size
    shapes = convolution_shapes(PATCHES, config.in_channels, width, kernel=size)
    shapes[POSITIONS] = (1, config.max_patches**2, width)
    shapes |= config.embedding.tensors()
    shapes |= linear_shapes("context_embedder", config.context_dim, width)
    for block in config.blocks:
        shapes |= block.tensors()
    shapes |= linear_shapes("norm_out.linear", width, 2 * width)
    return shapes | linear_shapes("proj_out", width, size * size * config.out_channels)


def _dual_layers(fields: ConfigFields, content: dict[str, Any]) -> tuple[int, ...]:
    layers = content.get("dual_attention_layers") or []
    if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
        raise fields.error(f"dual_attention_layers = {layers!r}, which is not a list of numbers")
    return tuple(layers)
