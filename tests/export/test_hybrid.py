"""Gated DeltaNet models against transformers in fp32, and their operators against a reference."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers

from engines.manifest import read_manifest
from export.checkpoint import open_checkpoint
from export.compile_plan import CompileOptions, plan_compilation
from export.errors import CheckpointError, ExportError
from export.graph import CONTRIB, GraphBuilder
from export.weights import WeightsFile
from tests.checkpoints import edit_json, make_checkpoint
from tests.export.quantized_checkpoints import (
    read_tensors,
    write_fp8,
    write_gptq,
    write_tensors,
)
from tests.export.slots import SlotDecoder
from tests.export.test_parity import TOLERANCE, assert_parity, random_ids, reference_logits

HYBRIDS = ["qwen3.5", "qwen3-next"]


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_prefill_and_32_decode_steps_equal_transformers(compiled, checkpoint, family, seed):
    assert_parity(compiled, checkpoint(family), seed)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("qwen3.5", {"tie_word_embeddings": False}),
        ("qwen3.5", {"linear_num_value_heads": 2}),
        ("qwen3.5", {"linear_num_value_heads": 8, "linear_value_head_dim": 16}),
        ("qwen3.5", {"linear_conv_kernel_dim": 3}),
        ("qwen3.5", {"layer_types": ["full_attention", "linear_attention"] * 2}),
        ("qwen3.5", {"rms_norm_eps": 1e-3}),
        ("qwen3.5", {"attention_bias": True}),
        ("qwen3-next", {"linear_num_key_heads": 4, "linear_num_value_heads": 4}),
        ("qwen3-next", {"head_dim": 128}),
    ],
)
def test_every_setting_of_a_family_is_followed(compiled, checkpoint, family, overrides):
    assert_parity(compiled, checkpoint(family, **overrides))


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("qwen3.5-moe", {}),
        ("qwen3-next-moe", {}),
        ("qwen3-next-moe", {"norm_topk_prob": False}),
        ("qwen3-next-moe", {"mlp_only_layers": [1]}),
    ],
)
def test_mixtures_of_experts_equal_transformers(compiled, checkpoint, family, overrides):
    assert_parity(compiled, checkpoint(family, **overrides))


def test_experts_that_stand_in_one_tensor_are_told_apart(compiled, checkpoint, own_checkpoint):
    folder = own_checkpoint("qwen3.5-moe")
    tensors = read_tensors(folder)
    for layer in range(4):
        at = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            np.stack([tensors.pop(f"{at}.{i}.{kind}_proj.weight") for i in range(8)])
            for kind in ("gate", "up", "down")
        )
        tensors[f"{at}.gate_up_proj"] = np.concatenate([gate, up], axis=1)  # [E, 2 * width, hidden]
        tensors[f"{at}.down_proj"] = down
    write_tensors(folder, tensors)
    token_ids = random_ids(24)
    found = compiled(folder).decoder.prefill(0, token_ids)
    expected = compiled(checkpoint("qwen3.5-moe")).decoder.prefill(0, token_ids)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("family", HYBRIDS)
def test_a_prompt_in_chunks_equals_the_prompt_in_one_piece(compiled, checkpoint, family, precision):
    decoder = compiled(checkpoint(family), precision=precision).decoder
    token_ids = random_ids(48)
    whole = decoder.prefill(0, token_ids)
    chunks = [decoder.prefill(1, token_ids[a:b], a) for a, b in ((0, 16), (16, 18), (18, 48))]
    assert np.abs(np.concatenate(chunks) - whole).max() < TOLERANCE
    for state, cache in decoder.caches.items():
        if not state.truncatable:
            assert np.abs(cache[0] - cache[1]).max() < TOLERANCE


def test_rows_of_a_decode_step_do_not_see_each_other(compiled, checkpoint):
    folder = checkpoint("qwen3.5")
    decoder = compiled(folder).decoder
    prompts = [random_ids(length, seed=length) for length in (5, 17, 9, 30)]
    for slot, prompt in enumerate(prompts):
        decoder.prefill(slot, prompt)
    found = decoder.decode([7, 8, 9, 10], [len(prompt) for prompt in prompts])
    for row, (prompt, token) in enumerate(zip(prompts, (7, 8, 9, 10), strict=True)):
        expected = reference_logits(folder, [*prompt, token])[-1]
        assert np.abs(found[row] - expected).max() < TOLERANCE


@pytest.fixture(scope="module")
def whole_checkpoint(tmp_path_factory):
    """A checkpoint with a vision tower and a head that predicts ahead, as they are published."""
    folder = make_checkpoint(tmp_path_factory.mktemp("whole") / "tiny-qwen3.5", "qwen3.5")
    text = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
    }
    config = transformers.Qwen3_5Config(
        text_config=text.config.to_dict(), vision_config=vision, tie_word_embeddings=True
    )
    model = transformers.Qwen3_5ForConditionalGeneration(config)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.save_pretrained(folder)
    return folder, text


def test_a_vision_tower_is_left_out_with_a_sentence(whole_checkpoint, compiled):
    folder, text = whole_checkpoint
    names = list(open_checkpoint(folder, "tiny").tensors)
    assert any(name.startswith("model.visual.") for name in names)
    engine = compiled(folder)
    token_ids = random_ids(40)
    with torch.inference_mode():
        expected = text(torch.tensor([token_ids])).logits[0].numpy()
    assert np.abs(engine.decoder.prefill(0, token_ids) - expected).max() < TOLERANCE
    sentence = read_manifest(engine.folder).unused_weights
    assert sentence.endswith("tensors for vision are left out: the engine reads text")


@pytest.mark.parametrize("layout", [write_fp8, write_gptq])
def test_a_quantized_checkpoint_with_a_vision_tower_is_read(
    whole_checkpoint, compiled, tmp_path, layout
):
    folder, text = whole_checkpoint
    own = shutil.copytree(folder, tmp_path / "own")
    matrices = layout(own)
    engine = compiled(own)
    plain = {name.replace("model.language_model.", "model."): m for name, m in matrices.items()}
    before = copy.deepcopy(text.state_dict())
    text.load_state_dict(before | {name: torch.from_numpy(m) for name, m in plain.items()})
    token_ids = random_ids(40)
    with torch.inference_mode():
        expected = text(torch.tensor([token_ids])).logits[0].numpy()
    text.load_state_dict(before)
    assert np.abs(engine.decoder.prefill(0, token_ids) - expected).max() < TOLERANCE
    assert "matrices were expanded from" in read_manifest(engine.folder).stored_weights


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize(("precision", "limit"), [("int8", 0.15), ("int4", 0.75)])
def test_quantized_logits_stay_near_fp32(compiled, checkpoint, family, precision, limit):
    folder = checkpoint(
        family, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"]
    )
    token_ids = random_ids(48)
    expected = reference_logits(folder, token_ids)
    found = compiled(folder, precision=precision).decoder.prefill(0, token_ids)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < limit, "an error of 0 would mean that nothing was quantized"


def test_states_of_fixed_size_say_that_they_cannot_be_truncated(compiled, checkpoint):
    spec = read_manifest(compiled(checkpoint("qwen3.5")).folder).chat
    fixed = [state for state in spec.states if not state.truncatable]
    assert len(fixed) == 2 * 3
    assert all(not state.grows and state.rows for state in fixed)
    shapes = {(state.heads, state.rows, state.width) for state in fixed}
    assert shapes == {(2 * 2 * 16 + 4 * 24, 1, 3), (4, 16, 24)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer_types": ["mamba"] * 4}, "layer_types has 4 layers of the kinds"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 layers"),
        ({"linear_num_value_heads": 3}, "3 value heads are no multiple of 2 key heads"),
        ({"rope_parameters": {"partial_rotary_factor": 0.1}}, "rotates 6 of 64 numbers"),
        ({"linear_key_head_dim": None}, "no field 'linear_key_head_dim'"),
    ],
)
def test_a_config_that_makes_no_sense_names_the_field(own_checkpoint, change, words):
    folder = own_checkpoint("qwen3.5")
    edit_json(folder / "config.json", **change)
    with pytest.raises(CheckpointError, match=words):
        plan_compilation(open_checkpoint(folder, "tiny"), CompileOptions(engine_id="tiny"))


def test_a_gpu_is_refused(checkpoint):
    options = CompileOptions(engine_id="tiny", precision="bf16", target="cuda")
    with pytest.raises(ExportError, match="Gated DeltaNet layers, which engines for cuda lack"):
        plan_compilation(open_checkpoint(checkpoint("qwen3.5"), "tiny"), options)


def run_operator(tmp_path, op_type, arrays, num_outputs, **attributes):
    with WeightsFile(tmp_path / "data") as weights:
        graph = GraphBuilder(weights)
        inputs = [
            None
            if array is None
            else graph.input(f"x{i}", "float32", [f"d{i}{axis}" for axis in range(array.ndim)])
            for i, array in enumerate(arrays)
        ]
        names = [f"y{i}" for i in range(num_outputs)]
        for value in graph.ops(op_type, inputs, names, domain=CONTRIB, **attributes):
            graph.expose(value)
        graph.save(tmp_path / "graph.onnx", "test")
    session = ort.InferenceSession(tmp_path / "graph.onnx")
    return session.run(None, {f"x{i}": a for i, a in enumerate(arrays) if a is not None})


def random(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", [1, 2, 70])
@pytest.mark.parametrize("key_heads", [2, 4])
def test_the_recurrence_is_that_of_the_paper(tmp_path, size, key_heads):
    n, heads, key_width, value_width = 2, 4, 16, 24
    query, key = (random(n, size, key_heads, key_width, seed=s) for s in (1, 2))
    query, key = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
    value, past = random(n, size, heads, value_width), random(n, heads, key_width, value_width)
    decay, rate = -np.abs(random(n, size, heads)), 1 / (1 + np.exp(random(n, size, heads, seed=3)))
    flat = [x.reshape(n, size, -1) for x in (query, key, value)]
    found, present = run_operator(
        tmp_path,
        "LinearAttention",
        [*flat, past, decay, rate],
        2,
        q_num_heads=key_heads,
        kv_num_heads=heads,
        update_rule="gated_delta",
    )
    state = past.astype(np.float64)
    query, key = (np.repeat(x, heads // key_heads, 2) for x in (query, key))
    for t in range(size):
        state *= np.exp(decay[:, t])[..., None, None]
        remembered = np.einsum("nhkv,nhk->nhv", state, key[:, t])
        change = rate[:, t][..., None] * (value[:, t] - remembered)
        state += np.einsum("nhk,nhv->nhkv", key[:, t], change)
        expected = np.einsum("nhkv,nhk->nhv", state, query[:, t]) / np.sqrt(key_width)
        assert np.abs(found[:, t].reshape(expected.shape) - expected).max() < 1e-5
    assert np.abs(present - state).max() < 1e-5


@pytest.mark.parametrize("size", [1, 2, 9])
def test_the_convolution_goes_on_from_its_last_inputs(tmp_path, size):
    x, weight, past = random(2, 12, size), random(12, 1, 4), random(2, 12, 3)
    found, present = run_operator(tmp_path, "CausalConvWithState", [x, weight, None, past], 2)
    whole = np.concatenate([past, x], axis=2)
    sums = np.stack([(whole[..., t : t + 4] * weight[:, 0]).sum(2) for t in range(size)], axis=2)
    assert np.abs(found - sums).max() < 1e-5
    assert np.array_equal(present, whole[..., -3:])


def test_states_are_written_where_they_were_read(compiled, checkpoint):
    """Two decoders on one graph, one of which binds past and present to memory of their own."""
    engine = compiled(checkpoint("qwen3.5"))
    token_ids = random_ids(20)
    first = engine.decoder.prefill(2, token_ids)
    second = SlotDecoder(engine.folder, num_slots=1).prefill(0, token_ids)
    assert np.array_equal(first, second)
