"""The first Qwen: its reference against what is known of it, and engines against the reference."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from engines.manifest import read_manifest
from export.command import export_engine
from export.config import ExportConfig
from export.errors import CheckpointError
from export.precision import Override
from export.report import QuietProgress
from server.text.processor import TextProcessor
from tests.checkpoints import edit_json
from tests.export.quantized_checkpoints import read_tensors, write_gptq, write_tensors
from tests.export.qwen1 import (
    END_OF_TEXT,
    TURN_BEGIN,
    TURN_END,
    load_qwen1,
    make_qwen1_checkpoint,
)
from tests.export.test_parity import TOLERANCE, engine_logits
from tests.export.test_refusals import refusal  # noqa: F401  (a fixture)

TRAINED = 128


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_qwen1_checkpoint(tmp_path_factory.mktemp("qwen1") / "Qwen-tiny-Chat")


@pytest.fixture
def own(tmp_path):
    """A checkpoint that a test may damage."""
    return make_qwen1_checkpoint(tmp_path / "own")


def ids(count, seed=0):
    return np.random.default_rng(seed).integers(0, 400, count).tolist()


def reference(folder, token_ids, num_prompt_tokens=None):
    with torch.inference_mode():
        return load_qwen1(folder)(torch.tensor(token_ids), num_prompt_tokens).numpy()


# What is known of the architecture.


def test_within_the_trained_length_it_is_qwen2_with_a_key_head_for_each_query_head(checkpoint):
    model = load_qwen1(checkpoint)
    config = Qwen2Config(
        vocab_size=640,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=False,
    )
    twin = Qwen2ForCausalLM(config).eval()
    state = model.state_dict()
    weights = {
        "model.embed_tokens.weight": state["transformer.wte.weight"],
        "model.norm.weight": state["transformer.ln_f.weight"],
        "lm_head.weight": state["lm_head.weight"],
    }
    for layer in range(2):
        old, new = f"transformer.h.{layer}", f"model.layers.{layer}"
        for part in ("weight", "bias"):
            chunks = state[f"{old}.attn.c_attn.{part}"].chunk(3)
            for letter, chunk in zip("qkv", chunks, strict=True):
                weights[f"{new}.self_attn.{letter}_proj.{part}"] = chunk
        weights[f"{new}.self_attn.o_proj.weight"] = state[f"{old}.attn.c_proj.weight"]
        weights[f"{new}.input_layernorm.weight"] = state[f"{old}.ln_1.weight"]
        weights[f"{new}.post_attention_layernorm.weight"] = state[f"{old}.ln_2.weight"]
        for name, kind in (("w2", "gate"), ("w1", "up"), ("c_proj", "down")):
            weights[f"{new}.mlp.{kind}_proj.weight"] = state[f"{old}.mlp.{name}.weight"]
    twin.load_state_dict(weights)
    token_ids = torch.tensor(ids(TRAINED))
    with torch.inference_mode():
        difference = (model(token_ids) - twin(token_ids[None]).logits[0]).abs().max()
    assert difference < 1e-5


def test_the_alpha_of_dynamic_ntk_grows_in_steps(checkpoint):
    model = load_qwen1(checkpoint)
    assert [model.ntk_alpha(length) for length in (1, 128, 129, 256, 257, 512)] == [
        1,
        1,
        3,
        3,
        7,
        7,
    ]


# Engines against it.


def test_prefill_and_32_decode_steps_equal_the_reference(compiled, checkpoint):
    token_ids = ids(56)
    found = engine_logits(compiled(checkpoint).decoder, token_ids)
    expected = reference(checkpoint, token_ids)
    assert expected.std() > 0.3
    assert np.abs(found - expected).max() < TOLERANCE


def test_the_context_is_the_trained_length_unless_asked_for_more(compiled, checkpoint):
    engine = compiled(checkpoint)
    assert engine.decoder.spec.max_context == TRAINED
    token_ids = ids(TRAINED)
    found = engine.decoder.prefill(0, token_ids)
    assert np.abs(found - reference(checkpoint, token_ids)).max() < TOLERANCE


@pytest.mark.parametrize("length", [200, 256, 512])
def test_a_longer_context_reads_as_the_reference_reads_its_longest_text(
    compiled, checkpoint, length
):
    decoder = compiled(checkpoint, max_context=length).decoder
    token_ids = ids(length)
    chunks = [
        decoder.prefill(1, token_ids[start : start + 50], start) for start in range(0, length, 50)
    ]
    expected = reference(checkpoint, token_ids)
    assert np.abs(np.concatenate(chunks) - expected).max() < TOLERANCE
    # Shorter texts are stretched as much.
    found = decoder.prefill(0, token_ids[:100])
    stretched = reference(checkpoint, token_ids[:100], num_prompt_tokens=length)
    assert np.abs(found - stretched).max() < TOLERANCE
    assert np.abs(stretched - reference(checkpoint, token_ids[:100])).max() > 10 * TOLERANCE


def test_rows_of_a_ragged_decode_step_have_queries_of_their_own_positions(compiled, checkpoint):
    decoder = compiled(checkpoint, max_context=256).decoder
    prompts = [ids(length, seed=length) for length in (5, 130, 255)]
    for slot, prompt in enumerate(prompts):
        decoder.prefill(slot, prompt)
    found = decoder.decode([7, 8, 9], [len(prompt) for prompt in prompts])
    for row, (prompt, token) in enumerate(zip(prompts, (7, 8, 9), strict=True)):
        expected = reference(checkpoint, [*prompt, token], num_prompt_tokens=256)[-1]
        assert np.abs(found[row] - expected).max() < TOLERANCE


def test_without_dynamic_ntk_and_logn_nothing_is_stretched(compiled, tmp_path):
    folder = make_qwen1_checkpoint(tmp_path / "72b", use_dynamic_ntk=False, use_logn_attn=False)
    token_ids = ids(TRAINED)
    found = compiled(folder).decoder.prefill(0, token_ids)
    assert np.abs(found - reference(folder, token_ids)).max() < TOLERANCE


def test_logn_alone_scales_queries_behind_the_trained_length(compiled, tmp_path):
    folder = make_qwen1_checkpoint(tmp_path / "logn", seq_length=64)
    edit_json(folder / "config.json", use_dynamic_ntk=True)
    decoder = compiled(folder, max_context=128).decoder
    token_ids = ids(128)
    found = decoder.prefill(0, token_ids)
    assert np.abs(found - reference(folder, token_ids)).max() < TOLERANCE
    assert math.log(128, 64) > 1.1


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_it_stays_near(compiled, checkpoint, precision):
    token_ids = ids(56)
    found = engine_logits(compiled(checkpoint, precision=precision).decoder, token_ids)
    expected = reference(checkpoint, token_ids)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < {"int8": 0.05, "int4": 0.35}[precision]


# Text.


def quantized_reference(folder, matrices, token_ids):
    """The reference on what the matrices of a quantized checkpoint stand for."""
    model = load_qwen1(make_qwen1_checkpoint(folder))
    model.load_state_dict(
        {name: torch.from_numpy(matrix) for name, matrix in matrices.items()}, strict=False
    )
    with torch.inference_mode():
        return model(torch.tensor(token_ids)).numpy()


@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_is_kept_as_it_is_stored(own, compiled, tmp_path, act_order):
    matrices = write_gptq(own, act_order=act_order)
    assert any("c_attn" in name for name in matrices)
    token_ids = ids(40)
    expected = quantized_reference(tmp_path / "plain", matrices, token_ids)
    exact = compiled(own, precision="fp32")
    assert np.abs(exact.decoder.prefill(0, token_ids) - expected).max() < 1e-4
    kept = compiled(own, precision="int4", overrides=(Override("head", "fp32"),))
    found = kept.decoder.prefill(0, token_ids)
    assert np.linalg.norm(found - expected) < 0.04 * np.linalg.norm(expected)
    sentence = read_manifest(kept.folder).stored_weights
    assert sentence.startswith("14 matrices are as the checkpoint stores them: GPTQ, 4 bits")


def test_biases_of_a_quantized_checkpoint_have_to_be_zero(own, compiled):
    write_gptq(own)
    tensors, name = read_tensors(own), "transformer.h.1.mlp.c_proj.bias"
    write_tensors(own, tensors | {name: np.zeros(64, np.float32)})
    compiled(own, precision="int4")
    write_tensors(own, tensors | {name: np.ones(64, np.float32)})
    with pytest.raises(CheckpointError, match="is not zero, but the model has no such bias"):
        compiled(own, precision="int4")


def test_chat_models_speak_chatml_and_end_with_their_turn(compiled, checkpoint):
    engine = compiled(checkpoint)
    assert engine.decoder.spec.eos_token_ids == (END_OF_TEXT, TURN_END, TURN_BEGIN)
    processor = TextProcessor.load(engine.folder)
    messages = [{"role": "user", "content": "Hi"}]
    assert processor.decode(processor.encode_chat(messages)) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    history = [
        {"role": "system", "content": "Be brief."},
        *messages,
        {"role": "assistant", "content": "Hello."},
        *messages,
    ]
    assert processor.decode(processor.encode_chat(history)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_turns_that_the_window_does_not_hold_are_left_out_from_the_oldest_on(compiled, own):
    edit_json(own / "generation_config.json", max_window_size=96)
    processor = TextProcessor.load(compiled(own).folder)
    system = {"role": "system", "content": "Be brief."}
    turns = [
        [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"{i}."}]
        for i in range(40)
    ]
    question = {"role": "user", "content": "And now?"}
    ids = processor.encode_chat([system, *(m for turn in turns for m in turn), question])
    text = processor.decode(ids)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is ")
    assert text.endswith(
        "39.<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )
    num_kept = text.count("What is")
    longer = [system, *(m for turn in turns[-num_kept - 1 :] for m in turn), question]
    assert 0 < num_kept < 40
    assert len(ids) <= 96
    edit_json(own / "generation_config.json", max_window_size=10_000)
    roomy = TextProcessor.load(compiled(own).folder)
    assert len(roomy.encode_chat(longer)) > 96
    # A single turn stays whole.
    long_question = {"role": "user", "content": "why " * 200}
    assert len(processor.encode_chat([long_question])) > 200


def test_base_models_have_no_template_and_end_with_the_text(compiled, own):
    edit_json(
        own / "generation_config.json", chat_format="raw", stop_words_ids=[[END_OF_TEXT], [9]]
    )
    engine = compiled(own)
    assert engine.decoder.spec.eos_token_ids == (END_OF_TEXT, 9)
    assert not (engine.folder / "chat_template.jinja").exists()
    (own / "generation_config.json").unlink()
    assert compiled(own).decoder.spec.eos_token_ids == (END_OF_TEXT,)


def test_an_export_without_a_reference_in_transformers_compares_with_fp32(checkpoint, tmp_path):
    config = ExportConfig(checkpoint_path=str(checkpoint), output=tmp_path, quiet=True)
    manifest = export_engine(config, QuietProgress()).manifest
    assert manifest.family == "qwen"
    assert manifest.verification.reference == "engine fp32"
    assert read_manifest(tmp_path / "Qwen-tiny-Chat") == manifest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"no_bias": False}, "no_bias = False, but only True"),
        ({"rotary_pct": 0.5}, "rotary_pct = 0.5, but only 1.0"),
        ({"kv_channels": 32}, "heads of 128 channels together, but hidden_size is 64"),
        ({"seq_length": None}, "no field 'seq_length'"),
        ({"vocab_size": 500}, "shape [640, 64]"),
    ],
)
def test_what_no_published_checkpoint_has_is_refused(refusal, own, change, words):  # noqa: F811
    edit_json(own / "config.json", **change)
    assert words in refusal(own)


def test_a_context_beyond_the_stretched_one_is_refused(refusal, own):  # noqa: F811
    assert "more than the 512 positions" in refusal(own, max_context=513)


def test_other_forms_of_chat_are_refused(refusal, own):  # noqa: F811
    edit_json(own / "generation_config.json", chat_format="other")
    assert "chat_format 'other'" in refusal(own)
    settings = json.loads((own / "generation_config.json").read_text())
    edit_json(own / "generation_config.json", chat_format="chatml", stop_words_ids=[[1, 2]])
    assert settings["chat_format"] == "other"
    assert "only single tokens" in refusal(own)
