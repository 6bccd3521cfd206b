"""Graphs for GPUs, held against those for the CPU: what they compute, and what they are made of.

All of it runs on the CPU, where the runtime widens what it has no kernel in half precision for. So
numbers are rounded to half precision between nodes, as on a GPU, but nodes sum in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.manifest import Manifest
from export.diffusion.build import ImageBuildOptions, build_image_engine, image_precision
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import ImagePlan, plan_image_engine
from export.errors import ExportError
from export.graph import CONTRIB
from export.report import QuietProgress

IN_FP16 = ("sd15", "sdxl", "sd3", "flux-dev")
NARROW = dict.fromkeys(IN_FP16, "fp16") | {"qwen-image": "bf16"}
PIPELINES = tuple(NARROW)
SIZES = {
    "batch": 2,
    "num_ids": 41,
    "height": 8,
    "width": 6,
    "num_tokens": 7,
    "image_height": 32,
    "image_width": 24,
}
NORMS = {"InstanceNormalization", "LayerNormalization", "SimplifiedLayerNormalization"}
PRODUCTS = {"Conv", "MatMul", "FusedMatMul", "MultiHeadAttention"}

# What TensorRT's parser and ONNX Runtime's CUDA provider are believed to take; not yet tried.
STANDARD_OPS = {
    *("Add", "ArgMax", "Cast", "Clip", "Concat", "Conv", "Cos", "DepthToSpace", "Div", "Equal"),
    *("Exp", "Expand", "Gather", "GatherND", "Gelu", "InstanceNormalization", "LayerNormalization"),
    *("Less", "MatMul", "Max", "Mul", "Pad", "Range", "ReduceL2", "ReduceMean", "Relu", "Reshape"),
    *("Resize", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub"),
    *("Transpose", "Trilu", "Unsqueeze", "Where"),
}
CUDA_CONTRIB_OPS = {"FusedMatMul", "MultiHeadAttention", "QuickGelu", "RotaryEmbedding"}


@dataclass(frozen=True)
class Drawn:
    """The graphs of one pipeline in one way, in a folder."""

    folder: Path
    plan: ImagePlan
    manifest: Manifest

    @property
    def names(self) -> list[str]:
        return [name for graph in self.plan.graphs for name in graph.drawings]

    def model(self, name: str) -> onnx.ModelProto:
        return onnx.load(self.folder / f"{name}.onnx", load_external_data=False)

    def run(self, name: str, model: onnx.ModelProto | None = None) -> dict[str, np.ndarray]:
        """A graph's outputs, or those of another form of it."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        graph: Path | bytes = self.folder / f"{name}.onnx"
        if model is not None:  # as it is: casts forth and back are what it is for
            graph = model.SerializeToString()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        feeds = {value.name: _numbers(value) for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.fixture(scope="module")
def drawn(
    pipeline: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Drawn]:
    """`drawn("sd15")` in fp32 for the CPU, `drawn("sd15", "fp16", "cuda")` for a GPU."""

    @cache
    def make(name: str, precision: str = "fp32", target: str = "ort-cpu") -> Drawn:
        folder = tmp_path_factory.mktemp("graphs")
        plan = plan_image_engine(open_diffusion_checkpoint(pipeline(name), name), name)
        options = ImageBuildOptions(
            precision=precision, calibration_prompts=(), verify=False, target=target
        )
        return Drawn(folder, plan, build_image_engine(plan, options, folder, QuietProgress()))

    return make


def _numbers(value: ort.NodeArg) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = [SIZES.get(size, size) for size in value.shape]
    if value.type == "tensor(int64)":
        return rng.integers(0, 50, shape)
    if value.name in ("timestep", "time_ids"):
        return rng.uniform(0, 999, shape).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    assert expected.std() > 0.01, "numbers this flat would agree whatever the graph does"
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def errors(found: Drawn, expected: Drawn) -> dict[str, float]:
    worst = {}
    for name in expected.names:
        theirs, ours = expected.run(name), found.run(name)
        assert ours.keys() == theirs.keys()
        assert all(array.dtype == np.float32 for array in ours.values())
        worst[name] = max(relative_error(ours[key], theirs[key]) for key in theirs)
    return worst


@pytest.mark.parametrize("name", PIPELINES)
def test_standard_operators_compute_what_the_fused_ones_do(drawn, name):
    found = errors(drawn(name, "fp32", "tensorrt"), drawn(name))
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
@pytest.mark.parametrize("name", IN_FP16)
def test_half_precision_is_off_by_its_rounding_alone(drawn, name, target):
    found = errors(drawn(name, "fp16", target), drawn(name))
    assert max(found.values()) < 5e-3, found
    is_wide = name == "sdxl"  # whose autoencoder stays in float32
    assert (found["vae_decoder"] < 1e-5) == is_wide


def test_bfloat16_is_off_by_its_rounding_alone(drawn):
    """The runtime has no kernels for it on a CPU, so every node's results are rounded to it."""
    made, expected = drawn("qwen-image", "bf16", "tensorrt"), drawn("qwen-image")
    worst = {}
    for name in ("text_encoder", "transformer"):
        assert TensorProto.BFLOAT16 in _types(made.model(name))
        theirs, ours = expected.run(name), made.run(name, rounded(made, name))
        worst[name] = max(relative_error(ours[key], theirs[key]) for key in theirs)
    assert max(worst.values()) < 0.04, worst
    for name in ("vae_decoder", "vae_encoder"):
        assert TensorProto.BFLOAT16 not in _types(made.model(name))


@pytest.mark.parametrize("is_narrow", [True, False])
@pytest.mark.parametrize("name", PIPELINES)
def test_tensorrt_gets_standard_operators_and_no_type_that_it_lacks(drawn, name, is_narrow):
    made = drawn(name, NARROW[name] if is_narrow else "fp32", "tensorrt")
    for graph in made.names:
        onnx.checker.check_model(str(made.folder / f"{graph}.onnx"), full_check=True)
        model = made.model(graph)
        assert {node.op_type for node in model.graph.node} <= STANDARD_OPS
        assert {node.domain for node in model.graph.node} == {""}
        assert {entry.domain for entry in model.opset_import} == {""}
        assert TensorProto.DOUBLE not in _types(model)


@pytest.mark.parametrize("name", PIPELINES)
def test_cuda_gets_operators_that_its_provider_has(drawn, name):
    made = drawn(name, NARROW[name], "cuda")
    for graph in made.names:
        model = made.model(graph)
        contrib = {node.op_type for node in model.graph.node if node.domain == CONTRIB}
        assert contrib <= CUDA_CONTRIB_OPS
        others = {node.op_type for node in model.graph.node if node.domain != CONTRIB}
        assert others <= STANDARD_OPS | {"SimplifiedLayerNormalization"}


def test_products_are_in_half_precision_and_norms_and_angles_are_not(drawn):
    made = drawn("sdxl", "fp16", "cuda")
    model, kinds = made.model("unet"), _value_types(made, "unet")
    met = set()
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            assert kinds[node.output[0]] == TensorProto.FLOAT16, node.name
        elif node.op_type in NORMS | {"Sin", "Cos"}:
            assert kinds[node.output[0]] == TensorProto.FLOAT, node.name
        met.add(node.op_type)
    assert {"Conv", "FusedMatMul", "MultiHeadAttention", "Sin"} <= met
    assert met & NORMS


def test_the_sums_of_a_transformer_are_wide_where_they_grow(drawn):
    made = drawn("flux-dev", "fp16", "cuda")
    for graph in ("transformer", "text_encoder_2"):
        kinds = _value_types(made, graph)
        sums = [name for name in kinds if name.endswith(".sum")]
        assert sums
        assert all(kinds[name] == TensorProto.FLOAT for name in sums)


def test_weights_take_half_the_bytes(drawn):
    def size(made, name):
        return (made.folder / f"{name}.onnx.data").stat().st_size

    for name in ("text_encoder", "unet", "vae_decoder"):
        assert size(drawn("sd15", "fp16", "cuda"), name) < 0.6 * size(drawn("sd15"), name)


@pytest.mark.parametrize("name", ["sd15", "flux-dev"])
def test_the_manifest_says_what_every_graph_reads_and_gives(drawn, name):
    made = drawn(name, "fp16", "tensorrt")
    manifest = made.manifest
    assert (manifest.target, manifest.precision) == ("tensorrt", "fp16")
    assert manifest.device is None, "no plan was built"
    assert manifest.image.graphs.keys() == {f"{graph}.onnx" for graph in made.names}
    for graph in made.names:
        signature, model = manifest.image.graphs[f"{graph}.onnx"], made.model(graph)
        for ours, theirs in (
            (signature.inputs, model.graph.input),
            (signature.outputs, model.graph.output),
        ):
            shapes = {
                value.name: tuple(
                    size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim
                )
                for value in theirs
            }
            assert {key: tensor.shape for key, tensor in ours.items()} == shapes
            kinds = {value.name: value.type.tensor_type.elem_type for value in theirs}
            assert {tensor.dtype for tensor in ours.values()} <= {"float32", "int64"}
            assert all(
                (kinds[key] == TensorProto.INT64) == (tensor.dtype == "int64")
                for key, tensor in ours.items()
            )


@pytest.mark.parametrize(
    ("name", "asked", "allowed"),
    [("qwen-image", "fp16", "bf16 or fp32"), ("sd15", "bf16", "fp16 or fp32")],
)
def test_a_precision_that_a_family_lacks_is_refused(pipeline, tmp_path, name, asked, allowed):
    plan = plan_image_engine(open_diffusion_checkpoint(pipeline(name), name), name)
    options = ImageBuildOptions(precision=asked, calibration_prompts=(), target="cuda")
    with pytest.raises(ExportError, match=f"--precision is {asked}, but .* in {allowed}: choose"):
        build_image_engine(plan, options, tmp_path, QuietProgress())


@pytest.mark.parametrize(
    ("asked", "target", "message"),
    [
        ("int8", "cuda", "--precision is int8, but .* for cuda in fp16 or bf16 or fp32"),
        ("fp16", "ort-cpu", "--precision is fp16, but .* for ort-cpu in int8 or fp32"),
        ("int4", "tensorrt", "--precision is int4, but .* for tensorrt in fp16 or bf16 or fp32"),
    ],
)
def test_a_precision_that_a_target_lacks_is_refused(asked, target, message):
    with pytest.raises(ExportError, match=message):
        image_precision(asked, target)


def _types(model: onnx.ModelProto) -> set[int]:
    casts = {
        attribute.i
        for node in model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
        if attribute.name == "to"
    }
    return casts | {tensor.data_type for tensor in model.graph.initializer}


def _value_types(made: Drawn, graph: str) -> dict[str, int]:
    """The type of every value, as onnx infers it; it does not know the contrib operators."""
    model = made.model(graph)
    known = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    known |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    for node in model.graph.node:
        to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
        fixed = {"Shape": TensorProto.INT64, "ArgMax": TensorProto.INT64}
        fixed |= {"Equal": TensorProto.BOOL, "Less": TensorProto.BOOL}
        first = node.input[1 if node.op_type == "Where" else 0]
        kind = to[0] if to else fixed.get(node.op_type, known.get(first))
        floats = {known[name] for name in node.input if name in known} & {
            TensorProto.FLOAT,
            TensorProto.FLOAT16,
            TensorProto.BFLOAT16,
        }
        assert len(floats) < 2, f"{node.name} reads values of two types"
        known |= dict.fromkeys(node.output, kind)
    return known


def rounded(made: Drawn, graph: str) -> onnx.ModelProto:
    """A graph in bfloat16 as one in float32 that rounds the results of each node to bfloat16."""
    kinds = _value_types(made, graph)
    model = onnx.load(made.folder / f"{graph}.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            numbers = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        narrow = [name for name in node.output if kinds.get(name) == TensorProto.BFLOAT16]
        if node.op_type == "Cast" and narrow:
            node.attribute[0].i = TensorProto.FLOAT
        node.output[:] = [f"{name}.wide" if name in narrow else name for name in node.output]
        model.graph.node.append(node)
        for name in narrow:
            for source, target, to in (
                (f"{name}.wide", f"{name}.narrow", TensorProto.BFLOAT16),
                (f"{name}.narrow", name, TensorProto.FLOAT),
            ):
                model.graph.node.append(helper.make_node("Cast", [source], [target], to=to))
    return model
