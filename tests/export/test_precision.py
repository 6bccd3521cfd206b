"""int8 and int4: how far they are from fp32, and that no row of a batch sees another."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engines.manifest import read_manifest
from export.errors import ExportError
from export.precision import NodePrecision, Override, parse_override
from export.quantize import (
    choose_block_size,
    dequantize_blocks,
    quantize_blocks,
    quantize_rows,
)
from tests.export.test_parity import random_ids


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("family", ["qwen2", "qwen2.5", "qwen3"])
@pytest.mark.parametrize(("precision", "limit"), [("int8", 0.05), ("int4", 0.35)])
def test_quantized_logits_stay_near_fp32(compiled, checkpoint, family, precision, limit):
    token_ids = random_ids(40)
    expected = compiled(checkpoint(family)).decoder.prefill(0, token_ids)
    found = compiled(checkpoint(family), precision=precision).decoder.prefill(0, token_ids)
    error = relative_error(found, expected)
    assert 1e-4 < error < limit, "an error of 0 would mean that nothing was quantized"


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_an_int8_row_is_bit_identical_whatever_its_neighbours(compiled, checkpoint, family):
    decoder = compiled(checkpoint(family), num_slots=8, precision="int8").decoder
    prompts = [random_ids(3 + 11 * slot, seed=slot) for slot in range(8)]
    for slot, prompt in enumerate(prompts):
        decoder.prefill(slot, prompt)
    lengths = [len(prompt) for prompt in prompts]
    alone = decoder.decode([77], lengths[:1])[0]
    for num_rows in range(1, 9):
        for seed in range(3):
            neighbours = random_ids(num_rows - 1, seed)
            found = decoder.decode([77, *neighbours], lengths[:num_rows])[0]
            assert np.array_equal(found, alone)


def test_an_int8_prompt_is_bit_identical_in_any_chunks(compiled, checkpoint):
    decoder = compiled(checkpoint("qwen3"), precision="int8").decoder
    token_ids = random_ids(96)
    whole = decoder.prefill(0, token_ids)[-1]
    for sizes in ([32, 32, 32], [64, 32], [50, 46]):
        past = 0
        for size in sizes:
            last = decoder.prefill(1, token_ids[past : past + size], past)[-1]
            past += size
        assert np.array_equal(last, whole)


def test_int8_rows_are_exact_to_half_a_step():
    weight = gaussian(50, 64)
    q, scale = quantize_rows(weight)
    assert q.dtype == np.int8
    assert q.min() >= -127
    assert np.all(np.abs(q * scale[:, None] - weight) <= scale[:, None] * 0.5001)


def test_a_row_of_zeros_stays_zero_and_its_scale_can_be_divided_by():
    weight = gaussian(4, 64)
    weight[2] = 0
    q, scale = quantize_rows(weight)
    assert not q[2].any()
    assert np.isfinite(1 / scale).all()
    packed, scales = quantize_blocks(weight, 32)
    assert np.isfinite(1 / scales).all()
    assert not dequantize_blocks(packed, scales, 64)[2].any()


def test_a_padded_vocabulary_of_zero_rows_gives_zero_logits(compiled, own_checkpoint):
    from safetensors.numpy import load_file, save_file

    folder = own_checkpoint("qwen2.5")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][450:] = 0
    save_file(tensors, folder / "model.safetensors")
    for precision in ("int8", "int4"):
        logits = compiled(folder, precision=precision).decoder.prefill(0, random_ids(8))
        assert np.isfinite(logits).all()
        assert np.abs(logits[:, 450:]).max() < 1e-4  # int4 adds up rounding, int8 nothing


@pytest.mark.parametrize(("block_size", "limit"), [(32, 0.09), (128, 0.11)])
def test_int4_blocks_have_the_error_of_sixteen_levels(block_size, limit):
    weight = gaussian(64, 256)
    packed, scales = quantize_blocks(weight, block_size)
    assert packed.shape == (64, 256 // block_size, block_size // 2)
    assert scales.shape == (64, 256 // block_size)
    assert 0.05 < relative_error(dequantize_blocks(packed, scales, 256), weight) < limit


def test_columns_that_do_not_fill_a_block_are_padded():
    weight = gaussian(8, 40)
    packed, scales = quantize_blocks(weight, 32)
    assert packed.shape == (8, 2, 16)
    assert relative_error(dequantize_blocks(packed, scales, 40), weight) < 0.1


def test_long_blocks_are_chosen_where_they_cost_nothing():
    assert choose_block_size(gaussian(64, 256)) == 32
    assert choose_block_size(np.sign(gaussian(64, 256))) == 128


@pytest.mark.parametrize("block_size", [32, 128])
def test_the_graph_has_the_block_size_that_was_asked_for(compiled, checkpoint, block_size):
    engine = compiled(checkpoint("qwen2"), precision="int4", int4_block_size=block_size)
    graph = ir.load(engine.folder / "model.onnx").graph
    found = {
        (node.attributes["block_size"].as_int(), node.attributes["accuracy_level"].as_int())
        for node in graph
        if node.op_type == "MatMulNBits"
    }
    assert found == {(block_size, 4)}
    assert np.isfinite(engine.decoder.prefill(0, random_ids(8))).all()


def test_overrides_change_single_nodes_and_are_recorded(compiled, checkpoint):
    overrides = (Override("head", "fp32"), Override("layers.1.mlp.down", "int8"))
    engine = compiled(checkpoint("qwen3"), precision="int4", overrides=overrides)
    operators = {node.name: node.op_type for node in ir.load(engine.folder / "model.onnx").graph}
    assert operators["head.matmul"] == "FusedMatMul"
    assert operators["layers.1.mlp.down.matmul"] == "MatMulIntegerToFloat"
    assert operators["layers.0.mlp.down.matmul"] == "MatMulNBits"
    recorded = read_manifest(engine.folder).node_precision
    assert recorded["head"] == "fp32"
    assert recorded["layers.1.mlp.down"] == "int8"
    assert recorded["mlp"] == "int4"
    assert np.isfinite(engine.decoder.prefill(0, random_ids(8))).all()


@pytest.mark.parametrize("pattern", ["down", "mlp", "layers.0", "layers.*.mlp.down"])
def test_a_pattern_names_a_node_a_class_or_a_layer(pattern):
    precision = NodePrecision("int4", (Override(pattern, "int8"),))
    assert precision.layout("layers.0.mlp.down") == "int8"
    assert precision.layout("layers.1.attention.o") == "int4"


def test_the_last_of_several_overrides_holds():
    precision = NodePrecision("int8", (Override("mlp", "fp32"), Override("down", "int4")))
    assert precision.layout("layers.0.mlp.down") == "int4"
    assert precision.layout("layers.0.mlp.up") == "fp32"


@pytest.mark.parametrize("text", ["head", "head=", "=int8", "head=int3", "head=fp8"])
def test_a_malformed_override_is_named(text):
    with pytest.raises(ValueError, match="NODE=LAYOUT"):
        parse_override(text)


def test_an_override_that_matches_nothing_is_refused():
    precision = NodePrecision("int8", (Override("heads", "fp32"),))
    with pytest.raises(ExportError, match="heads=fp32 matches no node"):
        precision.check(["embedding", "layers.0.mlp.down", "head"])


def test_an_embedding_of_four_bits_is_refused():
    precision = NodePrecision("int8", (Override("embedding", "int4"),))
    with pytest.raises(ExportError, match="not int4"):
        precision.check(["embedding", "head"])
