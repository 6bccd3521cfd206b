"""Compiled decoders against transformers in fp32, driven by the graph contract alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.checkpoints import edit_json

TOLERANCE = 1e-4
NUM_DECODE_STEPS = 32
PROMPT_TOKENS = 24

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}


def random_ids(count, seed=0):
    return np.random.default_rng(seed).integers(0, 400, count).tolist()


def reference_logits(checkpoint, token_ids):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).logits[0].numpy()  # [S, V]


def engine_logits(decoder, token_ids, slot=1):
    """Prefill of the first tokens, then one decode step for each of the others."""
    prompt = decoder.prefill(slot, token_ids[:PROMPT_TOKENS])
    steps = [
        decoder.decode([token_ids[position]], [position], slot)
        for position in range(PROMPT_TOKENS, len(token_ids))
    ]
    return np.concatenate([prompt, *steps])  # [S, V]


def assert_parity(compiled, checkpoint, seed=0, **options):
    token_ids = random_ids(PROMPT_TOKENS + NUM_DECODE_STEPS, seed)
    found = engine_logits(compiled(checkpoint, **options).decoder, token_ids)
    expected = reference_logits(checkpoint, token_ids)
    assert expected.std() > 0.3, "logits this flat would agree whatever the graph does"
    assert np.abs(found - expected).max() < TOLERANCE


@pytest.mark.parametrize("family", ["qwen2", "qwen2.5", "qwen3"])
@pytest.mark.parametrize("seed", [0, 1])
def test_prefill_and_32_decode_steps_equal_transformers(compiled, checkpoint, family, seed):
    assert_parity(compiled, checkpoint(family), seed)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("qwen2.5", {"tie_word_embeddings": False}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"tie_word_embeddings": False}),
        ("qwen3", {"attention_bias": True}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3", {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 48}),
        ("qwen2.5", {"num_key_value_heads": 1}),
        ("qwen2.5", {"rms_norm_eps": 1e-2}),
        ("qwen2.5", {"intermediate_size": 104}),
        ("qwen2.5", {"num_hidden_layers": 1}),
        ("qwen2.5", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}),
    ],
)
def test_every_setting_of_a_family_is_followed(compiled, checkpoint, family, overrides):
    assert_parity(compiled, checkpoint(family, **overrides))


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention_factor": 1.5},
        {"beta_fast": 16.0, "beta_slow": 2.0},
        {"mscale": 1.2, "mscale_all_dim": 0.8},
        {"truncate": False},
    ],
)
def test_yarn_follows_transformers(compiled, checkpoint, family, settings):
    assert_parity(compiled, checkpoint(family, rope_parameters=YARN | settings))


def test_the_old_spelling_of_rope_settings_gives_the_same_logits(compiled, own_checkpoint):
    folder = own_checkpoint("qwen2.5")
    edit_json(folder / "config.json", rope_parameters=None, rope_theta=5_000.0)
    assert_parity(compiled, folder)


def test_the_old_spelling_of_yarn_gives_the_same_logits(compiled, own_checkpoint):
    folder = own_checkpoint("qwen2.5")
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    edit_json(
        folder / "config.json", rope_parameters=None, rope_theta=10_000.0, rope_scaling=scaling
    )
    assert_parity(compiled, folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sources_are_widened_exactly(compiled, checkpoint, dtype):
    assert_parity(compiled, checkpoint("qwen3", dtype=dtype))


def test_a_sharded_checkpoint_gives_the_same_logits(compiled, checkpoint):
    folder = checkpoint("qwen2", dtype="bfloat16", max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert_parity(compiled, folder)


def test_late_positions_equal_transformers(compiled, checkpoint):
    folder = checkpoint("qwen3")
    token_ids = random_ids(256)
    found = compiled(folder).decoder.prefill(0, token_ids)
    assert np.abs(found - reference_logits(folder, token_ids)).max() < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_prompt_in_chunks_equals_the_prompt_in_one_piece(compiled, checkpoint, precision):
    decoder = compiled(checkpoint("qwen3"), precision=precision).decoder
    token_ids = random_ids(48)
    whole = decoder.prefill(0, token_ids)
    chunks = [decoder.prefill(1, token_ids[a : a + 16], a) for a in (0, 16, 32)]
    assert np.abs(np.concatenate(chunks) - whole).max() < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_chunk_that_needs_no_logits_still_fills_the_cache(compiled, checkpoint, precision):
    decoder = compiled(checkpoint("qwen2.5"), precision=precision).decoder
    token_ids = random_ids(32)
    expected = decoder.prefill(0, token_ids)[-1]
    assert decoder.run(1, [token_ids[:20]], [0], []).shape == (0, 512)
    found = decoder.run(1, [token_ids[20:]], [20], [11])
    assert np.abs(found[0] - expected).max() < TOLERANCE


def test_logits_of_chosen_rows_equal_those_of_all_rows(compiled, checkpoint):
    decoder = compiled(checkpoint("qwen3")).decoder
    token_ids = random_ids(20)
    everything = decoder.prefill(0, token_ids)
    chosen = decoder.run(1, [token_ids], [0], [3, 19])
    assert np.abs(chosen - everything[[3, 19]]).max() < TOLERANCE


def test_a_row_in_a_ragged_decode_step_equals_the_row_alone(compiled, checkpoint):
    folder = checkpoint("qwen3")
    decoder = compiled(folder).decoder
    prompts = [random_ids(length, seed=length) for length in (5, 17, 9, 30)]
    for slot, prompt in enumerate(prompts):
        decoder.prefill(slot, prompt)
    found = decoder.decode([7, 8, 9, 10], [len(prompt) for prompt in prompts])
    for row, (prompt, token) in enumerate(zip(prompts, (7, 8, 9, 10), strict=True)):
        expected = reference_logits(folder, [*prompt, token])[-1]
        assert np.abs(found[row] - expected).max() < TOLERANCE
