"""Mixtures of experts against transformers in fp32, and rows among others against rows alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file

from engines.manifest import read_manifest
from export.quantize import quantize_blocks_int8
from tests.checkpoints import edit_json
from tests.export.test_parity import (
    TOLERANCE,
    assert_parity,
    engine_logits,
    random_ids,
    reference_logits,
)
from tests.export.test_refusals import refusal  # noqa: F401  (a fixture)

FAMILIES = ["qwen2-moe", "qwen3-moe"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_prefill_and_32_decode_steps_equal_transformers(compiled, checkpoint, family, seed):
    assert_parity(compiled, checkpoint(family), seed)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("qwen2-moe", {"norm_topk_prob": True}),
        ("qwen3-moe", {"norm_topk_prob": False}),
        ("qwen2-moe", {"qkv_bias": False}),
        ("qwen2-moe", {"num_experts_per_tok": 1}),
        ("qwen3-moe", {"num_experts_per_tok": 8}),
        ("qwen2-moe", {"shared_expert_intermediate_size": 160}),
        ("qwen3-moe", {"num_hidden_layers": 4, "decoder_sparse_step": 2}),
        ("qwen3-moe", {"num_hidden_layers": 3, "mlp_only_layers": [0, 2]}),
        ("qwen2-moe", {"num_hidden_layers": 3, "mlp_only_layers": [1]}),
        ("qwen3-moe", {"num_experts": 128, "num_experts_per_tok": 8}),
    ],
)
def test_every_setting_of_a_mixture_is_followed(compiled, checkpoint, family, overrides):
    assert_parity(compiled, checkpoint(family, **overrides))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.05), ("int4", 0.4)])
def test_quantized_experts_stay_near(compiled, checkpoint, family, precision, bound):
    folder = checkpoint(family)
    token_ids = random_ids(56)
    found = engine_logits(compiled(folder, precision=precision).decoder, token_ids)
    expected = reference_logits(folder, token_ids)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < bound


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_does_not_depend_on_its_neighbours(compiled, checkpoint, family, precision):
    """The experts' operator adds up in an order that depends on the others: the last digits."""
    decoder = compiled(checkpoint(family), precision=precision).decoder
    prompts = [random_ids(length, seed=length) for length in (5, 17, 9, 30)]
    for slot, prompt in enumerate(prompts):
        decoder.prefill(slot, prompt)
    lengths = [len(prompt) for prompt in prompts]
    crowd = decoder.decode([7, 8, 9, 10], lengths)
    for row, token in enumerate((7, 8, 9, 10)):
        alone = decoder.decode([token], [lengths[row]], slot=row)[0]
        tolerance = 1e-5 if precision == "fp32" else 0.02  # a value at the edge of an int8 step
        assert np.abs(crowd[row] - alone).max() < tolerance


def test_a_prompt_in_chunks_equals_the_prompt_in_one_piece(compiled, checkpoint):
    decoder = compiled(checkpoint("qwen2-moe")).decoder
    token_ids = random_ids(48)
    whole = decoder.prefill(0, token_ids)
    chunks = [decoder.prefill(1, token_ids[a : a + 16], a) for a in (0, 16, 32)]
    assert np.abs(np.concatenate(chunks) - whole).max() < TOLERANCE


def test_the_precision_of_experts_and_of_the_shared_one_can_be_chosen(compiled, checkpoint):
    from export.precision import parse_override

    folder = checkpoint("qwen2-moe")
    overrides = (parse_override("experts=int4"), parse_override("layers.0.mlp.shared=fp32"))
    engine = compiled(folder, precision="int8", overrides=overrides)
    described = read_manifest(engine.folder).node_precision
    assert described["layers.1.mlp.experts"] == "int4"
    assert described["layers.0.mlp.shared.gate"] == "fp32"
    assert "layers.1.mlp.shared.gate" not in described


def test_all_parameters_are_counted(compiled, checkpoint):
    folder = checkpoint("qwen2-moe")
    stored = load_file(folder / "model.safetensors").values()
    assert compiled(folder).decoder.spec.num_parameters == sum(array.size for array in stored)


def test_experts_are_compiled_without_holding_them_all(compiled, checkpoint):
    """64 experts of 1.2 MB each in fp32; a layer together would be 75 MB."""
    shape = {
        "hidden_size": 256,
        "num_hidden_layers": 1,
        "num_experts": 64,
        "moe_intermediate_size": 384,
    }
    folder = checkpoint("qwen3-moe", **shape)
    compiled(checkpoint("qwen3-moe"), precision="int8")  # what is loaded once does not count
    tracemalloc.start()
    compiled(folder, precision="int8", max_context=64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25e6


def test_int8_blocks_stand_for_what_was_quantized():
    weight = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    weight[2] = 0
    q, scale = quantize_blocks_int8(weight, 32)
    back = (q.astype(np.float32) - 128).reshape(6, 2, 32) * scale[..., None]
    assert np.abs(back.reshape(6, 64) - weight).max() <= scale.max() / 2 + 1e-7
    assert (q[2] == 128).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok = 9 and num_experts = 8"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok = 0"),
        ({"moe_intermediate_size": 48}, "moe_intermediate_size = 48, but experts need a multiple"),
        ({"num_experts": 16}, "has the shape [8, 64], but config.json asks for [16, 64]"),
        ({"decoder_sparse_step": 0}, "field of the wrong type"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(refusal, own_checkpoint, change, words):  # noqa: F811
    folder = own_checkpoint("qwen2-moe")
    edit_json(folder / "config.json", **change)
    assert words in refusal(folder)
