"""The names and shapes of the tensors that a decoder's checkpoint holds."""

from __future__ import annotations

import math

from export.qwen.config import DecoderConfig
from export.qwen.hybrid import DeltaNetConfig
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
        prefix = f"model.layers.{layer}"
        delta_net = config.delta_net_of(layer)
        heads = (
            _attention_tensors(config, f"{prefix}.self_attn")
            if delta_net is None
            else _delta_net_tensors(delta_net, config.hidden_size, f"{prefix}.linear_attn")
        )
        shapes |= _layer_tensors(config, prefix) | heads
        shapes |= _mlp_tensors(config, layer, f"{prefix}.mlp")
    return shapes


def check_tensors(config: DecoderConfig, tensors: TensorFiles) -> None:
    """Check all tensors before the first is read.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    for name, shape in expected_tensors(config).items():
        tensors.require(name, shape)


def _layer_tensors(config: DecoderConfig, prefix: str) -> Shapes:
    return {
        f"{prefix}.input_layernorm.weight": (config.hidden_size,),
        f"{prefix}.post_attention_layernorm.weight": (config.hidden_size,),
    }


def _delta_net_tensors(delta_net: DeltaNetConfig, hidden: int, prefix: str) -> Shapes:
    heads, values = delta_net.num_value_heads, delta_net.values_width
    shapes: Shapes = {
        f"{prefix}.A_log": (heads,),
        f"{prefix}.dt_bias": (heads,),
        f"{prefix}.conv1d.weight": (delta_net.convolved_width, 1, delta_net.kernel_size),
        f"{prefix}.norm.weight": (delta_net.value_width,),
        f"{prefix}.out_proj.weight": (hidden, values),
    }
    if delta_net.packs_projections:
        return shapes | {
            f"{prefix}.in_proj_qkvz.weight": (delta_net.convolved_width + values, hidden),
            f"{prefix}.in_proj_ba.weight": (2 * heads, hidden),
        }
    return shapes | {
        f"{prefix}.in_proj_qkv.weight": (delta_net.convolved_width, hidden),
        f"{prefix}.in_proj_z.weight": (values, hidden),
        f"{prefix}.in_proj_a.weight": (heads, hidden),
        f"{prefix}.in_proj_b.weight": (heads, hidden),
    }


def _attention_tensors(config: DecoderConfig, attention: str) -> Shapes:
    hidden, width = config.hidden_size, config.num_heads * config.head_dim
    rows = {
        "q_proj": 2 * width if config.gates_heads else width,
        "k_proj": config.num_kv_heads * config.head_dim,
        "v_proj": config.num_kv_heads * config.head_dim,
    }
    shapes: Shapes = {f"{attention}.o_proj.weight": (hidden, width)}
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


def _mlp_tensors(config: DecoderConfig, layer: int, prefix: str) -> Shapes:
    hidden, experts = config.hidden_size, config.experts
    if experts is None or layer not in experts.layers:
        return _gated(prefix, hidden, config.intermediate_size)
    shapes: Shapes = {f"{prefix}.gate.weight": (experts.num_experts, hidden)}
    for expert in range(experts.num_experts):
        shapes |= _gated(f"{prefix}.experts.{expert}", hidden, experts.intermediate_size)
    if experts.shared_intermediate_size is not None:
        shapes |= _gated(f"{prefix}.shared_expert", hidden, experts.shared_intermediate_size)
        shapes[f"{prefix}.shared_expert_gate.weight"] = (1, hidden)
    return shapes


def _gated(prefix: str, hidden: int, width: int) -> Shapes:
    return {
        f"{prefix}.gate_proj.weight": (width, hidden),
        f"{prefix}.up_proj.weight": (width, hidden),
        f"{prefix}.down_proj.weight": (hidden, width),
    }


def num_elements(shapes: Shapes) -> int:
    """Numbers in all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())
