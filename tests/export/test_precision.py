"""int8 and int4: how far they are from fp32, and that no row of a batch sees another."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engines.backends.ort_session import open_session
from engines.manifest import read_manifest
from export.config import ExportConfig
from export.errors import ExportError
from export.graph import GraphBuilder
from export.linear import LinearEmitter, Projection
from export.precision import NodePrecision, Override, UniformPrecision, parse_override
from export.quantize import (
    choose_block_size,
    dequantize_blocks,
    quantize_blocks,
    quantize_rows,
)
from export.weights import WeightsFile
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


class OneMatrix:
    """The tensors of a checkpoint that has a single one."""

    def __init__(self, weight):
        self.weight = weight

    def shape(self, name):
        return self.weight.shape

    def row_blocks(self, name):
        yield 0, self.weight


def int8_product(folder, weight, row_scale=False):
    """A session that multiplies `x` by a weight in int8."""
    with WeightsFile(folder / "weights") as weights:
        graph = GraphBuilder(weights)
        x = graph.input("x", "float32", ["n", "S", weight.shape[1]])
        scale = graph.input("scale", "float32", ["n", "S", 1]) if row_scale else None
        linear = LinearEmitter(graph, OneMatrix(weight), UniformPrecision("int8"), None)
        y = linear.emit(x, Projection("node", ("weight",)), scale)
        graph.output(y, "y", "float32", ["n", "S", len(weight)])
        graph.save(folder / "model.onnx", "0")
        weights.finish()
    return open_session(folder / "model.onnx", num_threads=1)


def test_a_row_of_zeros_gives_zeros_and_harms_no_other(tmp_path):
    session = int8_product(tmp_path, gaussian(24, 64))
    x = gaussian(2, 5, 64, seed=1)
    expected = session.run(None, {"x": x})[0]
    x[1, 3] = 0
    found = session.run(None, {"x": x})[0]
    assert not found[1, 3].any()
    x_kept = np.ones((2, 5), bool)
    x_kept[1, 3] = False
    assert np.array_equal(found[x_kept], expected[x_kept])


def test_an_int8_product_is_near_that_in_float64_for_rows_of_any_size(tmp_path):
    weight, x = gaussian(24, 64), gaussian(3, 7, 64, seed=1)
    sizes = (10.0 ** np.arange(-10, 11).reshape(3, 7, 1)).astype(np.float32)
    expected = x.astype(np.float64) @ weight.T.astype(np.float64)
    session = int8_product(tmp_path, weight, row_scale=True)
    for scaled in (sizes, 1 / sizes):
        found = session.run(None, {"x": x * sizes, "scale": scaled})[0]
        errors = np.linalg.norm(found / (sizes * scaled) - expected, axis=-1)
        assert np.all(errors < 0.03 * np.linalg.norm(expected, axis=-1))


def test_a_decoder_brings_rows_to_eight_bits_in_one_node_and_asks_for_zero_points_twice(
    compiled, checkpoint
):
    folder = compiled(checkpoint("qwen2.5"), precision="int8").folder
    nodes = list(ir.load(folder / "model.onnx").graph)
    rounded = [node for node in nodes if node.op_type == "QuantizeLinear"]
    assert {node.attributes["axis"].as_int() for node in rounded} == {-1}
    # All rows of the step, and behind the last attention those that get logits.
    assert len({node.inputs[2] for node in rounded}) == 2
    assert not [node.name for node in nodes if node.name.endswith("up.scaled")]


def int8_weights(folder):
    """The matrices in int8 of a graph, by node."""
    model = ir.load(folder / "model.onnx")
    values = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {
        node.name: values[node.inputs[1].name].numpy()
        for node in model.graph
        if node.op_type == "MatMulIntegerToFloat"
    }


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_a_reduced_range_leaves_two_products_room_in_16_bits(compiled, checkpoint, family):
    engine = compiled(checkpoint(family), precision="int8", reduce_range=True)
    assert read_manifest(engine.folder).reduce_range
    weights = int8_weights(engine.folder)
    assert len(weights) > 8
    for weight in weights.values():
        assert np.abs(weight.astype(int)).max() == 64
        assert np.iinfo(np.int16).max >= 2 * 255 * 64
    token_ids = random_ids(48)
    exact = compiled(checkpoint(family), precision="fp32").decoder.prefill(0, token_ids)
    found = engine.decoder.prefill(0, token_ids)
    assert np.linalg.norm(found - exact) < 0.07 * np.linalg.norm(exact)


def test_an_engine_without_a_matrix_in_int8_has_no_reduced_range(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"), precision="int4", reduce_range=True)
    assert not read_manifest(engine.folder).reduce_range
    engine = compiled(checkpoint("qwen2.5"), precision="int8")
    assert not read_manifest(engine.folder).reduce_range
    assert max(np.abs(weight).max() for weight in int8_weights(engine.folder).values()) == 127


@pytest.mark.parametrize("settings", [{"precision": "fp32"}, {"target": "cuda"}])
@pytest.mark.parametrize("reduce_range", [False, True])
def test_a_range_of_weights_that_there_are_not_is_refused(settings, reduce_range):
    with pytest.raises(ValueError, match="--reduce-range is for weights in int8"):
        ExportConfig(checkpoint_path="any", reduce_range=reduce_range, **settings)
    ExportConfig(checkpoint_path="any", reduce_range=reduce_range, precision="int8")
    ExportConfig(checkpoint_path="any", **settings)
