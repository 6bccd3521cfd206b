"""Rotations at 32,000 positions and more against transformers, for the settings of real models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from export.qwen.rope import read_rope_parameters, rope_tables
from tests.export.test_parity import random_ids

NUM_POSITIONS = 40_960

# theta, longest context, YaRN's factor and the length it starts from, width of a head.
PUBLISHED = {
    "Qwen2.5-0.5B": (1e6, 32_768, None, None, 64),
    "Qwen2.5-7B with YaRN": (1e6, 131_072, 4.0, 32_768, 128),
    "Qwen2.5-7B-Instruct-1M": (1e7, 1_010_000, None, None, 128),
    "Qwen3-8B": (1e6, 40_960, None, None, 128),
    "Qwen3-8B with YaRN": (1e6, 131_072, 4.0, 32_768, 128),
    "Qwen3-4B-Instruct-2507": (5e6, 262_144, None, None, 128),
    "Qwen3-30B-A3B-Instruct-2507": (1e7, 262_144, None, None, 128),
    "Qwen3-30B-A3B-Instruct-2507 with YaRN": (1e7, 1_048_576, 4.0, 262_144, 128),
}


def rope_settings(theta, factor, original):
    settings = {"rope_type": "default", "rope_theta": theta}
    if factor is not None:
        settings |= {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    return settings


@pytest.mark.parametrize("model", PUBLISHED)
def test_tables_at_forty_thousand_positions_equal_those_of_transformers(model):
    theta, longest, factor, original, head_dim = PUBLISHED[model]
    settings = rope_settings(theta, factor, original)
    config = Qwen3Config(
        head_dim=head_dim, max_position_embeddings=longest, rope_parameters=dict(settings)
    )
    embedding = Qwen3RotaryEmbedding(config)
    expected = embedding(torch.zeros(1), torch.arange(NUM_POSITIONS)[None])
    rope = read_rope_parameters({"rope_parameters": settings, "max_position_embeddings": longest})
    for ours, theirs in zip(rope_tables(rope, head_dim, NUM_POSITIONS), expected, strict=True):
        # A frequency that is off by one in its last digit is off by 0.002 here.
        assert np.abs(ours - theirs[0, :, : head_dim // 2].numpy()).max() < 2e-4


@pytest.mark.parametrize("model", ["Qwen3-4B-Instruct-2507", "Qwen2.5-7B with YaRN"])
def test_a_tiny_model_behind_32_000_tokens_equals_transformers(compiled, checkpoint, model):
    theta, _, factor, original, _ = PUBLISHED[model]
    folder = checkpoint(
        "qwen3",
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=32,
        max_position_embeddings=131_072,
        rope_parameters=rope_settings(theta, factor, original),
    )
    token_ids = random_ids(32_768)
    decoder = compiled(folder, num_slots=1, max_context=len(token_ids)).decoder
    for start in range(0, len(token_ids), 1024):
        found = decoder.run(0, [token_ids[start : start + 1024]], [start], range(992, 1024))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([token_ids]), logits_to_keep=32).logits[0].numpy()
    assert logits.std() > 0.1
    assert np.abs(found - logits).max() < 1e-4
