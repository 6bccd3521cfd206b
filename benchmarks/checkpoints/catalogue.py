"""The published sizes that a checkpoint can be made in."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from benchmarks.checkpoints.hybrid import QWEN3_5_0_8B
from benchmarks.checkpoints.shapes import ChatShape


def _qwen2(hidden: int, layers: int, heads: int, keys: int, width: int) -> ChatShape:
    return ChatShape(
        family="qwen2",
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        intermediate_size=width,
        head_dim=hidden // heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )


def _qwen3(hidden: int, layers: int, heads: int, width: int) -> ChatShape:
    return ChatShape(
        family="qwen3",
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        intermediate_size=width,
        head_dim=128,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )


ShapeName = Literal[
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-3b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "qwen3-30b-a3b",
    "qwen3-moe-small",
    "qwen3.5-0.8b",
]
SHAPES: dict[ShapeName, ChatShape] = {
    "qwen2.5-0.5b": _qwen2(896, 24, 14, 2, 4864),
    "qwen2.5-1.5b": _qwen2(1536, 28, 12, 2, 8960),
    "qwen2.5-3b": _qwen2(2048, 36, 16, 2, 11_008),
    "qwen2.5-7b": replace(
        _qwen2(3584, 28, 28, 4, 18_944), tie_word_embeddings=False, vocab_size=152_064
    ),
    "qwen3-0.6b": _qwen3(1024, 28, 16, 3072),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 6144),
    "qwen3-4b": _qwen3(2560, 36, 32, 9728),
    "qwen3-8b": replace(_qwen3(4096, 36, 32, 12_288), tie_word_embeddings=False),
    "qwen3-30b-a3b": replace(
        _qwen3(2048, 48, 32, 6144),
        family="qwen3_moe",
        num_key_value_heads=4,
        tie_word_embeddings=False,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
    ),
    # Not published: those begin at 14 billion parameters. 1.0 billion, 0.3 of them for a token.
    "qwen3-moe-small": replace(
        _qwen3(1024, 16, 16, 3072),
        family="qwen3_moe",
        num_key_value_heads=4,
        num_experts=32,
        num_experts_per_tok=4,
        moe_intermediate_size=512,
    ),
    "qwen3.5-0.8b": QWEN3_5_0_8B,
}
