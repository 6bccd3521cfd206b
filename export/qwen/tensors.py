"""The names and shapes of the tensors that a decoder's checkpoint holds."""

from __future__ import annotations

import math

from export.qwen.config import DecoderConfig
from export.tensor_files import TensorFiles

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"

Shapes = dict[str, tuple[int, ...]]


def expected_tensors(config: DecoderConfig) -> Shapes:
    """Every tensor that the graph reads, by name."""
    shapes: Shapes = {
        EMBEDDING: (config.vocab_size, config.hidden_size),
        FINAL_NORM: (config.hidden_size,),
    }
    if not config.tie_word_embeddings:
        shapes[HEAD] = (config.vocab_size, config.hidden_size)
    for layer in range(config.num_layers):
        shapes |= _layer_tensors(config, f"model.layers.{layer}")
    return shapes


def check_tensors(config: DecoderConfig, tensors: TensorFiles) -> None:
    """Check all tensors before the first is read.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    for name, shape in expected_tensors(config).items():
        tensors.require(name, shape)


def _layer_tensors(config: DecoderConfig, prefix: str) -> Shapes:
    hidden, mlp = config.hidden_size, config.intermediate_size
    attention = f"{prefix}.self_attn"
    rows = {
        "q_proj": config.num_heads * config.head_dim,
        "k_proj": config.num_kv_heads * config.head_dim,
        "v_proj": config.num_kv_heads * config.head_dim,
    }
    shapes: Shapes = {
        f"{prefix}.input_layernorm.weight": (hidden,),
        f"{prefix}.post_attention_layernorm.weight": (hidden,),
        f"{prefix}.mlp.gate_proj.weight": (mlp, hidden),
        f"{prefix}.mlp.up_proj.weight": (mlp, hidden),
        f"{prefix}.mlp.down_proj.weight": (hidden, mlp),
        f"{attention}.o_proj.weight": (hidden, rows["q_proj"]),
    }
    for projection, size in rows.items():
        shapes[f"{attention}.{projection}.weight"] = (size, hidden)
        if config.qkv_bias:
            shapes[f"{attention}.{projection}.bias"] = (size,)
    if config.output_bias:
        shapes[f"{attention}.o_proj.bias"] = (hidden,)
    if config.qk_norm:
        shapes[f"{attention}.q_norm.weight"] = (config.head_dim,)
        shapes[f"{attention}.k_norm.weight"] = (config.head_dim,)
    return shapes


def num_elements(shapes: Shapes) -> int:
    """Numbers in all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())
