"""Graphs for CUDA and TensorRT of tiny checkpoints: drawn, checked, and run where a CPU can."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as schemas

from engines.manifest import read_manifest
from export.checkpoint import open_checkpoint
from export.compile_plan import CompileOptions, plan_compilation
from export.errors import ExportError

FAMILIES = ("qwen2", "qwen2.5", "qwen3")
MIXTURES = ("qwen2-moe", "qwen3-moe")
TOLERANCE = 1e-4

# What ONNX Runtime's CUDA provider computes in float16 and in bfloat16 (its docs/OperatorKernels.md
# for 1.31); every graph has to stay within.
CUDA_OPERATORS = {
    "Add",
    "Cast",
    "Flatten",
    "FusedMatMul",
    "Gather",
    "GroupQueryAttention",
    "MatMulNBits",
    "MoE",
    "Mul",
    "PagedAttention",
    "QMoE",
    "QuickGelu",
    "ReduceSum",
    "Reshape",
    "Sigmoid",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Slice",
    "Softmax",
    "TopK",
}
ONNX_TYPES = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


def load(folder):
    return onnx.load(folder / "model.onnx", load_external_data=False).graph


def operators(graph):
    return Counter(node.op_type for node in graph.node)


def types(values):
    return {value.name: value.type.tensor_type.elem_type for value in values}


def sizes(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4"])
@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_a_cuda_graph_holds_what_the_provider_has_kernels_for(
    compiled_for, checkpoint, family, precision
):
    shape = {"moe_intermediate_size": 64} if family in MIXTURES else {}
    folder = compiled_for(checkpoint(family, **shape), target="cuda", precision=precision)
    graph = load(folder)
    found = operators(graph)
    assert found.keys() <= CUDA_OPERATORS
    assert found["PagedAttention"] == 2
    assert ("MatMulNBits" in found) == (precision == "int4")
    if family in MIXTURES:
        assert found["QMoE" if precision == "int4" else "MoE"] == 2
    half = ONNX_TYPES.get(precision, onnx.TensorProto.BFLOAT16)
    floating = {
        tensor.data_type
        for tensor in graph.initializer
        if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.UINT8)
    }
    assert floating == {half}, "every weight has the type of the activations"
    # All is resolved and typed before kernels are looked for, of which the CPU lacks some.
    with pytest.raises(schemas.NotImplemented, match="Could not find an implementation for"):
        ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", FAMILIES)
def test_paged_attention_gets_its_inputs_where_the_schema_has_them(
    compiled_for, checkpoint, family
):
    folder = compiled_for(checkpoint(family), target="cuda", precision="bf16")
    graph = load(folder)
    schema = next(
        schema for schema in schemas.get_all_operator_schema() if schema.name == "PagedAttention"
    )
    places = [parameter.name for parameter in schema.inputs]
    node = next(node for node in graph.node if node.op_type == "PagedAttention")
    given = dict(zip(places, node.input, strict=False))
    assert given["key_cache"] == "past_key_values.0.key"
    assert given["value_cache"] == "past_key_values.0.value"
    assert given["cumulative_sequence_length"] == "cumulative_sequence_lengths"
    assert given["past_seqlens"] == "past_sequence_lengths"
    assert given["block_table"] == "block_table"
    assert given["cos_cache"] == "rope.cos"
    assert given["sin_cache"] == "rope.sin"
    assert given["slot_mapping"] == "slot_mapping"
    assert given["attention_metadata"] == "attention_metadata"
    has_norms = family == "qwen3"
    assert bool(given["q_norm_weight"]) == bool(given["k_norm_weight"]) == has_norms
    assert bool(given["key"]) == has_norms, "without norms q, k and v come packed"
    assert {attribute.name for attribute in node.attribute} <= schema.attributes.keys()


@pytest.mark.parametrize(
    ("target", "precision", "kv_cache"),
    [
        ("cuda", "bf16", "blocks"),
        ("cuda", "fp16", "blocks"),
        ("cuda", "bf16", "slots"),
        ("tensorrt", "fp16", "auto"),
        ("tensorrt", "bf16", "auto"),
    ],
)
def test_caches_come_out_in_the_type_and_shape_that_they_went_in(
    compiled_for, checkpoint, target, precision, kv_cache
):
    folder = compiled_for(
        checkpoint("qwen3"), target=target, precision=precision, kv_cache=kv_cache
    )
    graph, spec = load(folder), read_manifest(folder).chat
    inputs = {value.name: value for value in graph.input}
    outputs = {value.name: value for value in graph.output}
    assert spec.kv_cache == ("blocks" if kv_cache == "blocks" else "slots")
    assert len(spec.states) == 4
    for state in spec.states:
        assert sizes(inputs[state.input]) == sizes(outputs[state.output])
        assert types(graph.input)[state.input] == ONNX_TYPES[precision]
        assert types(graph.output)[state.output] == ONNX_TYPES[precision]
        assert state.dtype == {"fp16": "float16", "bf16": "bfloat16"}[precision]
    if target == "tensorrt":  # a plan has the rows of a slot fixed
        assert sizes(inputs[spec.states[0].input]) == ["n", 2, spec.max_context + 1, 32]


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_logits_are_float32_with_their_largest_beside_them(compiled_for, checkpoint, target):
    folder = compiled_for(checkpoint("qwen2.5"), target=target, precision="fp16")
    graph, spec = load(folder), read_manifest(folder).chat
    outputs = {value.name: value for value in graph.output}
    assert spec.num_tokens < spec.vocab_size, "the checkpoint's head is padded"
    assert sizes(outputs["logits"]) == ["R", spec.num_tokens]
    assert sizes(outputs["candidate_ids"]) == ["R", spec.num_candidates]
    assert types(graph.output)["logits"] == onnx.TensorProto.FLOAT
    assert types(graph.output)["candidate_logits"] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_tensorrt_graph_is_standard_onnx(compiled_for, checkpoint, family, precision):
    folder = compiled_for(checkpoint(family), target="tensorrt", precision=precision)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    assert operators(model.graph)["TensorScatter"] == 4
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)


class StandardDecoder:
    """Runs a graph for TensorRT on a CPU, as its contract says and nothing more."""

    def __init__(self, folder, num_slots=4):
        self.spec = read_manifest(folder).chat
        self.session = ort.InferenceSession(
            folder / "model.onnx", providers=["CPUExecutionProvider"]
        )
        self.rows = self.spec.max_context + self.spec.spare_rows
        self.caches = {
            state: np.zeros((num_slots, state.heads, self.rows, state.width), np.float32)
            for state in self.spec.states
        }

    def run(self, slot, input_ids, past_lens, num_visible=None):
        """Logits of all tokens; the likeliest have to agree with them. [n * S, num_tokens]"""
        input_ids = np.asarray(input_ids, np.int64)  # [n, S]
        past_lens = np.asarray(past_lens, np.int64)  # [n]
        num_rows, length = input_ids.shape
        visible = num_visible or int(past_lens.max()) + length
        inputs = {
            "input_ids": input_ids,
            "position_ids": past_lens[:, None] + np.arange(length),
            "write_indices": past_lens,
            "cache_positions": np.arange(visible),
            "logit_indices": np.arange(input_ids.size),
        }
        binding = self.session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name in ("logits", "candidate_logits", "candidate_ids"):
            binding.bind_output(name)
        for state, cache in self.caches.items():
            view = cache[slot : slot + num_rows]
            value = ort.OrtValue.ortvalue_from_numpy(view)
            assert value.data_ptr() == view.ctypes.data
            binding.bind_ortvalue_input(state.input, value)
            binding.bind_ortvalue_output(state.output, value)
        self.session.run_with_iobinding(binding)
        logits, largest, ids = (value.numpy() for value in binding.get_outputs()[:3])
        assert (np.take_along_axis(logits, ids, 1) == largest).all()
        assert (logits.argmax(1) == ids[:, 0]).all()
        return logits


def random_ids(count, seed=0):
    return np.random.default_rng(seed).integers(4, 400, count).tolist()


@pytest.fixture
def pair(compiled, compiled_for, checkpoint):
    """The same checkpoint for the CPU and for TensorRT, both in fp32."""

    def make(family):
        folder = checkpoint(family)
        standard = StandardDecoder(compiled_for(folder, target="tensorrt", precision="fp32"))
        return compiled(folder).decoder, standard

    return make


def assert_equal(found, expected):
    assert np.abs(found - expected[:, : found.shape[1]]).max() < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_the_standard_graph_equals_the_cpu_engine(pair, family):
    """A prompt in chunks, then ragged decode steps of three slots beside an idle one."""
    cpu, standard = pair(family)
    prompts = [random_ids(size, seed=size) for size in (40, 7, 23, 12)]
    for slot, prompt in enumerate(prompts):
        for start in range(0, len(prompt), 16):
            chunk = prompt[start : start + 16]
            assert_equal(standard.run(slot, [chunk], [start]), cpu.prefill(slot, chunk, start))
    lens = [len(prompt) for prompt in prompts]
    for step in range(6):
        tokens = random_ids(4, seed=100 + step)
        found = standard.run(0, [[token] for token in tokens], lens)
        assert_equal(found, cpu.decode(tokens, lens))
        lens = [length + 1 for length in lens]


def test_rows_behind_a_sequence_are_never_seen(pair):
    """Whatever a slot held before, and however far a run looks."""
    cpu, standard = pair("qwen3")
    for cache in standard.caches.values():
        cache[:] = 1e4
    prompt = random_ids(20)
    expected = cpu.prefill(0, prompt)
    for num_visible in (20, 64, standard.rows):
        assert_equal(standard.run(0, [prompt], [0], num_visible), expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "cuda", "precision": "int8"}, r"target cuda computes in bf16, fp16, int4"),
        ({"target": "ort-cpu", "precision": "bf16"}, r"target ort-cpu computes in fp32, int4, in"),
        ({"target": "tensorrt", "precision": "int4"}, r"target tensorrt computes in bf16, fp16, f"),
        ({"target": "tensorrt", "precision": "bf16", "kv_cache": "blocks"}, r"tensorrt keeps slot"),
    ],
)
def test_what_a_target_cannot_do_is_refused_by_name(checkpoint, options, sentence):
    opened = open_checkpoint(checkpoint("qwen3"), "tiny")
    with pytest.raises(ExportError, match=sentence):
        plan_compilation(opened, CompileOptions(engine_id="tiny", **options))


def test_mixtures_for_tensorrt_and_experts_too_narrow_for_int4_are_refused(
    compiled_for, checkpoint
):
    opened = open_checkpoint(checkpoint("qwen3-moe"), "tiny")
    options = CompileOptions(engine_id="tiny", target="tensorrt", precision="bf16")
    with pytest.raises(ExportError, match="mixtures of experts are compiled for ort-cpu and cuda"):
        plan_compilation(opened, options)
    with pytest.raises(ExportError, match=r"experts of 64 and 32 columns .* blocks of 64 or 128"):
        compiled_for(checkpoint("qwen3-moe"), target="cuda", precision="int4")


def test_heads_too_wide_for_pages_get_slots(compiled_for, checkpoint):
    wide = checkpoint("qwen3", head_dim=272)
    folder = compiled_for(wide, target="cuda", precision="fp16")
    assert read_manifest(folder).chat.kv_cache == "slots"
    assert operators(load(folder))["GroupQueryAttention"] == 2
    opened = open_checkpoint(wide, "tiny")
    options = CompileOptions(engine_id="tiny", target="cuda", precision="fp16", kv_cache="blocks")
    with pytest.raises(ExportError, match="heads are 272 wide"):
        plan_compilation(opened, options)
