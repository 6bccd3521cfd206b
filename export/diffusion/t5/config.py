"""`T5Config`: config.json of a `T5EncoderModel`, checked, and its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.fields import ConfigFields
from export.diffusion.shapes import Shapes, linear_shapes
from export.diffusion.traits import TextTraits

EMBEDDING = "shared.weight"
FINAL_NORM = "encoder.final_layer_norm"

_GATED = "gated-gelu"


@dataclass(frozen=True, slots=True, kw_only=True)
class T5Config:
    """The shape of an encoder.

    Attributes:
        head_dim: Numbers in a head; all heads together need not be as wide as a row.
        is_gated: Whether the feed-forward layer is one of GELU with a gate (1.1), or of ReLU.
        num_buckets: Distances between tokens that are told apart, half of them for each direction.
        max_distance: From here on all distances are the same.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_dim: int
    is_gated: bool
    num_buckets: int
    max_distance: int
    epsilon: float

    @property
    def layer_names(self) -> list[str]:
        return [f"encoder.block.{layer}" for layer in range(self.num_layers)]

    @property
    def position_bias(self) -> str:
        """The table of the first block, which all blocks share."""
        return f"{self.layer_names[0]}.layer.0.SelfAttention.relative_attention_bias.weight"

    @property
    def traits(self) -> TextTraits:
        return TextTraits(
            vocab_size=self.vocab_size,
            row_width=self.hidden_size,
            pooled_width=None,
            max_positions=None,
        )


def read_t5_config(file: str, content: dict[str, Any]) -> T5Config:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require({"feed_forward_proj": ("relu", _GATED)})
    config = T5Config(
        vocab_size=fields.integer("vocab_size", 32128),
        hidden_size=fields.integer("d_model", 512),
        intermediate_size=fields.integer("d_ff", 2048),
        num_layers=fields.integer("num_layers", 6),
        num_heads=fields.integer("num_heads", 8),
        head_dim=fields.integer("d_kv", 64),
        is_gated=content.get("feed_forward_proj") == _GATED,
        num_buckets=fields.integer("relative_attention_num_buckets", 32, minimum=4),
        max_distance=fields.integer("relative_attention_max_distance", 128),
        epsilon=fields.number("layer_norm_epsilon", 1e-6),
    )
    if config.num_buckets % 4:
        raise fields.error(
            f"relative_attention_num_buckets = {config.num_buckets}, but it must be a multiple of "
            "4: near and far, before and behind"
        )
    if config.max_distance <= config.num_buckets // 4:
        raise fields.error(
            f"relative_attention_max_distance = {config.max_distance}, but it must be above "
            f"{config.num_buckets // 4}, a quarter of relative_attention_num_buckets"
        )
    return config


def t5_tensors(config: T5Config) -> Shapes:
    """Every tensor of the checkpoint that the graph reads."""
    width, inner = config.hidden_size, config.num_heads * config.head_dim
    shapes: Shapes = {
        EMBEDDING: (config.vocab_size, width),
        config.position_bias: (config.num_buckets, config.num_heads),
        f"{FINAL_NORM}.weight": (width,),
    }
    for layer in config.layer_names:
        attention, dense = f"{layer}.layer.0.SelfAttention", f"{layer}.layer.1.DenseReluDense"
        for projection in "qkv":
            shapes |= linear_shapes(f"{attention}.{projection}", width, inner, bias=False)
        shapes |= linear_shapes(f"{attention}.o", inner, width, bias=False)
        for projection in ("wi_0", "wi_1") if config.is_gated else ("wi",):
            name = f"{dense}.{projection}"
            shapes |= linear_shapes(name, width, config.intermediate_size, bias=False)
        shapes |= linear_shapes(f"{dense}.wo", config.intermediate_size, width, bias=False)
        shapes |= {f"{layer}.layer.{index}.layer_norm.weight": (width,) for index in range(2)}
    return shapes
