"""`TextEncoderConfig`: config.json of a CLIP text encoder, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.diffusion.fields import ConfigFields
from export.diffusion.shapes import Shapes, linear_shapes, norm_shapes
from export.diffusion.traits import TextTraits

ACTIVATIONS = ("quick_gelu", "gelu")
PROJECTION = "text_projection"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """The shape of a text encoder.

    Attributes:
        eos_token_id: The token whose row stands for the whole text; the first one counts.
        pools_highest_id: Whether the highest token id of a text marks that row instead. Old
            checkpoints ask for it by an `eos_token_id` of 2, which no text ends with.
        projection_dim: The width of the projected text; None where there is no projection.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_position_embeddings: int
    hidden_act: str
    layer_norm_eps: float
    eos_token_id: int
    projection_dim: int | None

    @property
    def pools_highest_id(self) -> bool:
        return self.eos_token_id == 2

    @property
    def traits(self) -> TextTraits:
        return TextTraits(
            vocab_size=self.vocab_size,
            row_width=self.hidden_size,
            pooled_width=self.projection_dim or self.hidden_size,
            max_positions=self.max_position_embeddings,
        )

    @property
    def layer_names(self) -> list[str]:
        return [f"encoder.layers.{layer}" for layer in range(self.num_layers)]


def read_text_encoder_config(
    file: str, content: dict[str, Any], *, has_projection: bool
) -> TextEncoderConfig:
    """Translate config.json.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    fields = ConfigFields(file, content)
    fields.require({"hidden_act": ACTIVATIONS, "use_attention_mask": (False, None)})
    config = TextEncoderConfig(
        vocab_size=fields.integer("vocab_size", 49408),
        hidden_size=fields.integer("hidden_size", 512),
        intermediate_size=fields.integer("intermediate_size", 2048),
        num_layers=fields.integer("num_hidden_layers", 12),
        num_heads=fields.integer("num_attention_heads", 8),
        max_position_embeddings=fields.integer("max_position_embeddings", 77),
        hidden_act=content.get("hidden_act", ACTIVATIONS[0]),
        layer_norm_eps=fields.number("layer_norm_eps", 1e-5),
        eos_token_id=fields.integer("eos_token_id", 49407, minimum=0),
        projection_dim=fields.integer("projection_dim", 512) if has_projection else None,
    )
    if config.hidden_size % config.num_heads:
        raise fields.error(
            f"hidden_size = {config.hidden_size}, which is no multiple of its {config.num_heads} "
            "attention heads"
        )
    return config


def expected_tensors(config: TextEncoderConfig) -> Shapes:
    """Every tensor that the graph reads, without the prefix of some checkpoints."""
    width = config.hidden_size
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (config.vocab_size, width),
        "embeddings.position_embedding.weight": (config.max_position_embeddings, width),
    }
    for layer in config.layer_names:
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear_shapes(f"{layer}.self_attn.{projection}", width, width)
        shapes |= linear_shapes(f"{layer}.mlp.fc1", width, config.intermediate_size)
        shapes |= linear_shapes(f"{layer}.mlp.fc2", config.intermediate_size, width)
        shapes |= norm_shapes(f"{layer}.layer_norm1", width)
        shapes |= norm_shapes(f"{layer}.layer_norm2", width)
    shapes |= norm_shapes("final_layer_norm", width)
    if config.projection_dim is not None:
        shapes |= linear_shapes(PROJECTION, width, config.projection_dim, bias=False)
    return shapes
