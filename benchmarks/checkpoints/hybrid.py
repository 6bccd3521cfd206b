"""Qwen3.5's text model: three of four layers are a Gated DeltaNet, the fourth has gated heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.checkpoints.shapes import ChatShape, Tensors

_INTERVAL = 4  # every fourth layer has attention


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridShape(ChatShape):
    """The sizes of the Gated DeltaNet layers beside the others."""

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_conv_kernel_dim: int = 4

    def config(self) -> dict[str, Any]:
        kinds = ["linear_attention"] * (_INTERVAL - 1) + ["full_attention"]
        sizes = (
            "linear_num_key_heads",
            "linear_num_value_heads",
            "linear_key_head_dim",
            "linear_value_head_dim",
            "linear_conv_kernel_dim",
        )
        rope = {
            "rope_type": "default",
            "rope_theta": 10_000_000.0,
            "partial_rotary_factor": 0.25,
            "mrope_interleaved": True,
            "mrope_section": [11, 11, 10],
        }
        return (
            ChatShape.config(self)
            | {name: getattr(self, name) for name in sizes}
            | {
                "attention_bias": False,
                "head_dim": self.head_dim,
                "layer_types": kinds * (self.num_hidden_layers // _INTERVAL),
                "rope_parameters": rope,
            }
        )

    def _heads(self, layer: int) -> Tensors:
        hidden = self.hidden_size
        if layer % _INTERVAL == _INTERVAL - 1:
            at = f"model.layers.{layer}.self_attn"
            queries = self.num_attention_heads * self.head_dim
            keys = self.num_key_value_heads * self.head_dim
            return {
                f"{at}.q_proj.weight": (2 * queries, hidden),  # with the gate of each head
                f"{at}.k_proj.weight": (keys, hidden),
                f"{at}.v_proj.weight": (keys, hidden),
                f"{at}.o_proj.weight": (hidden, queries),
                f"{at}.q_norm.weight": (self.head_dim,),
                f"{at}.k_norm.weight": (self.head_dim,),
            }
        at = f"model.layers.{layer}.linear_attn"
        heads = self.linear_num_value_heads
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        values = heads * self.linear_value_head_dim
        return {
            f"{at}.dt_bias": (heads,),
            f"{at}.A_log": (heads,),
            f"{at}.conv1d.weight": (2 * keys + values, 1, self.linear_conv_kernel_dim),
            f"{at}.norm.weight": (self.linear_value_head_dim,),
            f"{at}.out_proj.weight": (hidden, values),
            f"{at}.in_proj_qkv.weight": (2 * keys + values, hidden),
            f"{at}.in_proj_z.weight": (values, hidden),
            f"{at}.in_proj_b.weight": (heads, hidden),
            f"{at}.in_proj_a.weight": (heads, hidden),
        }


QWEN3_5_0_8B = HybridShape(
    family="qwen3_5_text",
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=8,
    num_key_value_heads=2,
    intermediate_size=3584,
    head_dim=256,
    max_position_embeddings=262_144,
    tie_word_embeddings=True,
    vocab_size=248_320,
    num_text_tokens=248_044,
    linear_num_key_heads=16,
    linear_num_value_heads=16,
)
