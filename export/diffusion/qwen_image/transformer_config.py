"""`QwenTransformerConfig`: config.json of a `QwenImageTransformer2DModel`, and its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.dit.attention import Heads
from export.diffusion.fields import ConfigFields
from export.diffusion.qwen_image.joint_block import JointBlock
from export.diffusion.shapes import Shapes, linear_shapes
from export.diffusion.timestep import Sinusoids, TimestepEmbedding
from export.diffusion.traits import DenoiserTraits, Width
from export.tensor_files import TensorFiles

PATCH_SIZE = 2
NUM_TRAIN_TIMESTEPS = 1000.0
# The model is told shares of the whole time, and multiplies what it makes of them.
TIME_WAVES = Sinusoids(256, flip_sin_to_cos=True, freq_shift=0.0, scale=NUM_TRAIN_TIMESTEPS)

_LATENTS_PER_PATCH = PATCH_SIZE * PATCH_SIZE
_SAMPLE_SIZE = 128  # latents along a side; the config does not say
_SUPPORTED: dict[str, tuple[object, ...]] = {
    "patch_size": (PATCH_SIZE,),
    "guidance_embeds": (False,),
    "zero_cond_t": (False,),
    "use_additional_t_cond": (False,),
    "use_layer3d_rope": (False,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenTransformerConfig:
    """The shape of a transformer.

    Attributes:
        latent_channels: Channels of the latents; it reads and gives patches of 2 x 2 of them.
        context_width: The width of the prompt's rows.
        axes_dims: Channels of a head that are turned by the frame, the row and the column.
    """

    latent_channels: int
    num_layers: int
    heads: Heads
    context_width: int
    axes_dims: tuple[int, int, int]

    @property
    def width(self) -> int:
        return self.heads.total_width

    @property
    def patch_width(self) -> int:
        return self.latent_channels * _LATENTS_PER_PATCH

    @property
    def blocks(self) -> list[JointBlock]:
        last = self.num_layers - 1
        return [
            JointBlock(f"transformer_blocks.{layer}", self.heads, is_last=layer == last)
            for layer in range(self.num_layers)
        ]

    @property
    def time_embedding(self) -> TimestepEmbedding:
        name = "time_text_embed.timestep_embedder"
        return TimestepEmbedding(name, TIME_WAVES.width, self.width)

    @property
    def traits(self) -> DenoiserTraits:
        return DenoiserTraits(
            context=Width("joint_attention_dim", self.context_width),
            pooled=Width("pooled width", 0),
            in_channels=Width("in_channels", self.patch_width),
            out_channels=Width("in_channels", self.patch_width),
            channels_per_latent=_LATENTS_PER_PATCH,
            patch_size=PATCH_SIZE,
            sample_size=_SAMPLE_SIZE,
            rescales_guidance=True,
        )


def read_qwen_transformer_config(file: str, content: dict[str, Any]) -> QwenTransformerConfig:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require(_SUPPORTED)
    in_channels = fields.integer("in_channels", 64)
    out_channels = fields.optional_integer("out_channels") or in_channels
    if in_channels != out_channels * _LATENTS_PER_PATCH:
        raise fields.error(
            f"in_channels = {in_channels}, but out_channels = {out_channels} in patches of "
            f"{PATCH_SIZE} x {PATCH_SIZE} make {out_channels * _LATENTS_PER_PATCH}"
        )
    head_dim = fields.integer("attention_head_dim", 128)
    axes_dims = fields.integers("axes_dims_rope")
    is_even = len(axes_dims) == 3 and not any(dim % 2 for dim in axes_dims)
    if not is_even or sum(axes_dims) != head_dim:
        raise fields.error(
            f"axes_dims_rope = {list(axes_dims)}, which are not three even numbers that add up to "
            f"attention_head_dim = {head_dim}"
        )
    frame, row, column = axes_dims
    return QwenTransformerConfig(
        latent_channels=out_channels,
        num_layers=fields.integer("num_layers", 60),
        heads=Heads(fields.integer("num_attention_heads", 24), head_dim, normalized=True),
        context_width=fields.integer("joint_attention_dim", 3584),
        axes_dims=(frame, row, column),
    )


def expected_tensors(config: QwenTransformerConfig) -> Shapes:
    """Every tensor of the checkpoint."""
    width = config.width
    shapes: Shapes = config.time_embedding.tensors()
    shapes |= {"txt_norm.weight": (config.context_width,)}
    shapes |= linear_shapes("txt_in", config.context_width, width)
    shapes |= linear_shapes("img_in", config.patch_width, width)
    shapes |= linear_shapes("norm_out.linear", width, 2 * width)
    shapes |= linear_shapes("proj_out", width, config.patch_width)
    for block in config.blocks:
        shapes |= block.tensors()
    return shapes


def open_qwen_transformer_tensors(config: QwenTransformerConfig, files: TensorFiles) -> TensorFiles:
    """Check every tensor.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    shapes = expected_tensors(config)
    for name, shape in shapes.items():
        files.require(name, shape)
    return TensorFiles({name: files.stored(name) for name in shapes})
