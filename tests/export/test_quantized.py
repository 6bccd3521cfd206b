"""Checkpoints that are quantized already: kept as they are where the layout allows it."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engines.manifest import read_manifest
from export.checkpoint import open_checkpoint
from export.compile_plan import CompileOptions, default_precision, plan_compilation
from export.errors import CheckpointError, ExportError
from export.precision import Override
from export.quantize import dequantize_blocks
from tests.checkpoints import edit_json
from tests.export import quantized_checkpoints as write

LAYOUTS = {
    "gptq": write.write_gptq,
    "gptq-zeros": partial(write.write_gptq, symmetric=False),
    "gptq-order": partial(write.write_gptq, symmetric=False, act_order=True),
    "gptq-own-orders": partial(write.write_gptq, act_order=True, own_order=True),
    "gptq-v2": partial(write.write_gptq, symmetric=False, form="gptq_v2"),
    "gptq-8": partial(write.write_gptq, bits=8, symmetric=False),
    "awq": write.write_awq,
    "pack-4": write.write_pack_quantized,
    "pack-4-zeros": partial(write.write_pack_quantized, symmetric=False),
    "pack-4-order": partial(write.write_pack_quantized, act_order=True),
    "pack-4-rows": partial(write.write_pack_quantized, group=None),
    "pack-8": partial(write.write_pack_quantized, bits=8),
    "int-8-rows": write.write_int_quantized,
    "int-8-zeros": partial(write.write_int_quantized, symmetric=False),
    "int-8-groups": partial(write.write_int_quantized, group=32),
    "int-8-tensor": partial(write.write_int_quantized, by_tensor=True),
    "fp8-blocks": write.write_fp8,
    "fp8-tensor": partial(write.write_fp8, grain="tensor"),
    "fp8-rows": partial(write.write_fp8, grain="row", compressed=True),
}
KEPT = [name for name in LAYOUTS if not name.startswith("fp8")]
PROMPT = np.random.default_rng(3).integers(0, 400, 48).tolist()


@pytest.fixture
def stored(own_checkpoint):
    """`stored(layout)`: a checkpoint in it, and the matrices that it stands for."""

    def make(layout, family="qwen2.5", **settings):
        folder = own_checkpoint(family, **settings)
        return folder, LAYOUTS[layout](folder)

    return make


def dequantized_model(folder, matrices):
    """transformers on the same weights in float32."""
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    names = {name: torch.from_numpy(matrix) for name, matrix in matrices.items()}
    whole = open_checkpoint(folder, "tiny").tensors
    plain = {name: torch.from_numpy(whole.read(name)) for name in whole.plain_names}
    kind = type(AutoModelForCausalLM.from_config(config))
    return kind.from_pretrained(
        None, config=config, state_dict=plain | names, dtype=torch.float32
    ).eval()


def reference(folder, matrices):
    with torch.inference_mode():
        return dequantized_model(folder, matrices)(torch.tensor([PROMPT])).logits[0].numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_matrix_reads_as_what_it_stands_for(stored, layout):
    folder, matrices = stored(layout)
    tensors = open_checkpoint(folder, "tiny").tensors
    for name, expected in matrices.items():
        found = tensors.read(name)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max(), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_fp32_the_engine_equals_transformers_on_the_same_weights(stored, compiled, layout):
    folder, matrices = stored(layout, "qwen3")
    expected = reference(folder, matrices)
    engine = compiled(folder, precision="fp32")
    assert np.abs(engine.decoder.prefill(0, PROMPT) - expected).max() < 1e-4
    sentence = read_manifest(engine.folder).stored_weights
    assert sentence.startswith("14 matrices were expanded from ")
    assert sentence.endswith(", to fp32")


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
@pytest.mark.parametrize("layout", KEPT)
def test_integers_and_scales_of_an_engine_are_those_of_the_checkpoint(
    stored, compiled, layout, family
):
    folder, matrices = stored(layout, family)
    precision, _ = default_precision(open_checkpoint(folder, "tiny"))
    engine = compiled(folder, precision=precision, overrides=(Override("head", "fp32"),))
    assert read_manifest(engine.folder).precision == precision
    found = engine_matrices(engine.folder / "model.onnx")
    down = "model.layers.1.mlp.down_proj.weight"
    assert np.array_equal(found["layers.1.mlp.down"], matrices[down])
    qkv = ["q", "k", "v"] if family == "qwen3" else ["qkv"]
    stacked = np.concatenate([found[f"layers.0.attention.{kind}"] for kind in qkv])
    expected = [matrices[f"model.layers.0.self_attn.{kind}_proj.weight"] for kind in "qkv"]
    assert np.array_equal(stacked, np.concatenate(expected))
    # Activations are rounded to 8 bits, which is all that differs.
    logits, wanted = engine.decoder.prefill(0, PROMPT), reference(folder, matrices)
    assert np.linalg.norm(logits - wanted) < 0.04 * np.linalg.norm(wanted)
    assert (
        "14 matrices are as the checkpoint stores them"
        in read_manifest(engine.folder).stored_weights
    )


def test_a_reduced_range_leaves_integers_of_the_checkpoint_alone(stored, compiled):
    folder, matrices = stored("int-8-rows")
    engine = compiled(folder, precision="int8", reduce_range=True)
    down = engine_matrices(engine.folder / "model.onnx")["layers.1.mlp.down"]
    assert np.array_equal(down, matrices["model.layers.1.mlp.down_proj.weight"])
    assert not read_manifest(engine.folder).reduce_range
    folder, _ = stored("fp8-rows", "qwen3")
    engine = compiled(folder, precision="int8", reduce_range=True)
    assert read_manifest(engine.folder).reduce_range


def engine_matrices(graph):
    """What the matrices of a graph stand for, by node, their columns in the model's order."""
    model = ir.load(graph)
    values = {name: value.const_value for name, value in model.graph.initializers.items()}
    found, parts = {}, {}
    for node in model.graph:
        if node.op_type not in ("MatMulNBits", "MatMulIntegerToFloat"):
            continue
        arrays = [
            values[i.name].numpy() if i is not None and i.name in values else None
            for i in node.inputs
        ]
        name = node.name.removesuffix(".matmul")
        if node.op_type == "MatMulIntegerToFloat":
            found[name] = arrays[1].T.astype(np.float32) * arrays[3][:, None]
            continue
        weight = expand(node, *arrays[1:4]) if len(arrays) > 3 else expand(node, *arrays[1:3])
        order = values.get(f"{name}.columns")
        if order is not None:
            plain = np.empty_like(weight)
            plain[:, order.numpy()] = weight
            weight = plain
        parts[name] = weight
    for name, weight in parts.items():
        stem, _, index = name.rpartition(".")
        whole = stem if index.isdecimal() else name
        found[whole] = np.concatenate([found[whole], weight]) if whole in found else weight
    return found


def expand(node, packed, scales, zeros=None):
    attributes = {name: value.value for name, value in node.attributes.items()}
    num_rows, num_columns = attributes["N"], attributes["K"]
    scales = scales.reshape(num_rows, -1)
    if attributes["bits"] == 4 and zeros is None:
        return dequantize_blocks(packed, scales, num_columns)
    if attributes["bits"] == 4:
        values = np.stack([packed & 0xF, packed >> 4], -1).reshape(*scales.shape, -1)
        zeros = zeros.reshape(num_rows, -1)
        zeros = np.stack([zeros & 0xF, zeros >> 4], -1).reshape(num_rows, -1)
        zeros = zeros[:, : scales.shape[1]]
    else:
        values = packed
        zeros = np.full(scales.shape, 128) if zeros is None else zeros.reshape(scales.shape)
    weight = (values.astype(np.float32) - zeros[..., None]) * scales[..., None]
    return weight.reshape(num_rows, -1).astype(np.float32)[:, :num_columns]


@pytest.mark.parametrize(
    ("layout", "precision", "overrides"),
    [
        ("gptq", "int4", (Override("head", "int8"),)),
        ("awq", "int4", (Override("head", "int8"),)),
        ("gptq-8", "int8", ()),
        ("int-8-rows", "int8", ()),
        ("fp8-blocks", "int8", ()),
    ],
)
def test_without_a_precision_an_export_keeps_what_the_checkpoint_has(
    stored, layout, precision, overrides
):
    folder, _ = stored(layout)
    assert default_precision(open_checkpoint(folder, "tiny")) == (precision, overrides)


def test_experts_are_expanded_and_the_rest_is_kept(stored, compiled):
    folder, matrices = stored("gptq", "qwen3-moe")
    engine = compiled(folder, precision="fp32")
    plain = {name: torch.from_numpy(matrix) for name, matrix in matrices.items()}
    tensors = open_checkpoint(folder, "tiny").tensors
    assert np.array_equal(
        tensors.read("model.layers.1.mlp.experts.3.up_proj.weight"),
        plain["model.layers.1.mlp.experts.3.up_proj.weight"].numpy(),
    )
    expected = engine.decoder.prefill(0, PROMPT)
    int4 = compiled(folder, precision="int4", overrides=(Override("head", "fp32"),))
    sentence = read_manifest(int4.folder).stored_weights
    assert sentence.startswith("48 matrices were expanded from GPTQ, 4 bits, groups of 32")
    assert sentence.endswith("8 are as the checkpoint stores them")
    found = int4.decoder.prefill(0, PROMPT)
    assert np.linalg.norm(found - expected) < 0.5 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("layout", "precision"), [("fp8-blocks", "int8"), ("awq", "int8"), ("int-8-rows", "int4")]
)
def test_another_precision_quantizes_again_and_says_so(stored, compiled, layout, precision):
    folder, matrices = stored(layout)
    engine = compiled(folder, precision=precision)
    sentence = read_manifest(engine.folder).stored_weights
    assert sentence.startswith("14 matrices were expanded from ")
    assert sentence.endswith(f"and quantized again to {precision}")
    logits, wanted = engine.decoder.prefill(0, PROMPT), reference(folder, matrices)
    bound = 0.5 if precision == "int4" else 0.1
    assert np.linalg.norm(logits - wanted) < bound * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("gptq", {"quant_method": "bitsandbytes"}, "quantized by 'bitsandbytes', but only gptq"),
        ("gptq", {"bits": 3}, "GPTQ of 3 bits, but 4 or 8 are read"),
        ("gptq", {"checkpoint_format": "marlin"}, "in the format 'marlin'"),
        ("awq", {"version": "gemv"}, "in the version 'gemv'"),
        ("pack-4", {"format": "marlin-24"}, "in the format 'marlin-24'"),
        ("pack-4", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "without sparsity"),
        ("gptq", {"bits": "four"}, "the quantization_config cannot be read"),
    ],
)
def test_a_layout_that_cannot_be_read_is_named(stored, layout, changes, message):
    folder, _ = stored(layout)
    config = open_checkpoint(folder, "tiny").config["quantization_config"]
    edit_json(folder / "config.json", quantization_config=config | changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder, "tiny")


def test_a_config_that_promises_quantized_weights_and_has_none_is_refused(own_checkpoint):
    folder = own_checkpoint("qwen2.5")
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(CheckpointError, match="quantized by gptq, but no tensor is"):
        open_checkpoint(folder, "tiny")


@pytest.mark.parametrize("missing", ["qzeros", "scales"])
def test_a_part_that_is_missing_is_named(stored, missing):
    folder, _ = stored("gptq")
    tensors = write.read_tensors(folder)
    del tensors[f"model.layers.0.mlp.up_proj.{missing}"]
    write.write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match=rf"no tensor 'model.layers.0.mlp.up_proj.{missing}'"):
        open_checkpoint(folder, "tiny")


def test_a_part_of_another_shape_is_refused(stored):
    folder, _ = stored("gptq")
    tensors = write.read_tensors(folder)
    tensors["model.layers.0.mlp.up_proj.scales"] = np.ones((3, 7), np.float16)
    write.write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match=r"has the shape .*, but the others ask for"):
        open_checkpoint(folder, "tiny")


def test_groups_of_unlike_size_are_refused(stored):
    folder, _ = stored("gptq")
    tensors = write.read_tensors(folder)
    tensors["model.layers.0.mlp.up_proj.g_idx"] = np.zeros(64, np.int32)
    write.write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match="are not of one size"):
        open_checkpoint(folder, "tiny").tensors.read("model.layers.0.mlp.up_proj.weight")


def test_a_block_size_for_weights_that_are_kept_is_refused(stored):
    folder, _ = stored("gptq")
    options = CompileOptions(engine_id="tiny", precision="int4", int4_block_size=128)
    with pytest.raises(ExportError, match="--int4-block-size is 128, but the checkpoint's weights"):
        plan_compilation(open_checkpoint(folder, "tiny"), options)


def test_a_graph_for_each_phase_is_refused_for_weights_that_are_kept(stored):
    folder, _ = stored("gptq")
    options = CompileOptions(engine_id="tiny", precision="int8", decode_precision="int4")
    with pytest.raises(ExportError, match="--optimize latency holds the weights in int8 and in"):
        plan_compilation(open_checkpoint(folder, "tiny"), options)
