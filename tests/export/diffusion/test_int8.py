"""Graphs in int8: what they are made of, how near they are to fp32, and that rows stay apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engines.image.runner import DenoiseBatch
from engines.manifest import read_manifest, write_manifest
from export.diffusion.build import ImageBuildOptions, build_image_engine
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import plan_image_engine
from export.diffusion.quantization.precision import Int8Precision, NodeRanges, node_class
from export.diffusion.quantization.ranges import ActivationRange
from export.report import QuietProgress
from tests.export.diffusion.pictures import draw, make_request, open_engine

PROMPTS = ("red circle", "blue star")


@pytest.fixture(scope="session")
def int8_engine(pipeline, tmp_path_factory):
    """`int8_engine("sd15")`: the folder of an engine in int8 that is not to be changed."""
    made = {}

    def make(name, **settings):
        key = (name, *settings.items())
        if key not in made:
            folder = tmp_path_factory.mktemp("int8-engines") / f"tiny-{name}"
            folder.mkdir()
            plan = plan_image_engine(open_diffusion_checkpoint(pipeline(name), name), name)
            options = ImageBuildOptions(
                precision="int8",
                calibration_prompts=PROMPTS,
                verify=True,
                force=True,
                **settings,
            )
            write_manifest(build_image_engine(plan, options, folder, QuietProgress()), folder)
            made[key] = folder
        return made[key]

    return make


def op_types(folder, graph):
    """Node -> operator, of the nodes that are named after modules."""
    model = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    return {node.name: node.op_type for node in model.graph.node}


def test_convolutions_and_transformers_of_the_unet_are_int8_and_its_ends_are_not(int8_engine):
    found = op_types(int8_engine("sd15"), "unet")
    assert found["conv_in"] == found["conv_out"] == "Conv"
    assert found["down_blocks.0.resnets.0.conv1.levels"] == "QLinearConv"
    assert found["down_blocks.0.resnets.0.conv1"] == "DequantizeLinear"
    assert _num_scales(int8_engine("sd15"), "down_blocks.0.resnets.0.conv1") > 1
    for name in ("upsamplers.0.conv", "resnets.0.conv_shortcut"):
        assert found[f"up_blocks.0.{name}"] == "Conv"
    block = "mid_block.attentions.0.transformer_blocks.0"
    for layer in ("attn1.to_q", "attn1.to_out.0", "attn2.to_k", "ff.net.0.gate", "ff.net.2"):
        assert found[f"{block}.{layer}.matmul"] == "MatMulIntegerToFloat"
    assert found["time_embedding.linear_1.matmul"] == "FusedMatMul"
    counts = Counter(found.values())
    assert counts["QLinearConv"] > counts["Conv"]
    assert "ConvInteger" not in counts


def _int8_weights(folder, graph):
    """By node, as the graph has them."""
    model = ir.load(folder / graph)
    values = {name: value.const_value for name, value in model.graph.initializers.items()}
    place = {"QLinearConv": 3, "MatMulIntegerToFloat": 1}
    return [
        values[node.inputs[place[node.op_type]].name].numpy()
        for node in model.graph
        if node.op_type in place
    ]


def test_a_reduced_range_of_weights_leaves_sums_room_in_16_bits(int8_engine):
    folder = int8_engine("sd15", reduce_range=True)
    manifest = read_manifest(folder)
    assert manifest.reduce_range
    assert not read_manifest(int8_engine("sd15")).reduce_range
    for graph in (manifest.image.denoiser, "vae_decoder.onnx"):
        weights = _int8_weights(folder, graph)
        assert weights
        assert {int(np.abs(weight.astype(int)).max()) for weight in weights} == {64}


def test_every_convolution_has_a_zero_of_its_own(int8_engine):
    # Without VNNI the runtime makes another of each, and refuses to make one twice.
    model = ir.load(int8_engine("sd15") / "unet.onnx")
    zeros = [node.inputs[5].name for node in model.graph if node.op_type == "QLinearConv"]
    assert len(zeros) > 3
    assert len(zeros) == len(set(zeros))


def _num_scales(folder, node):
    """In how many ranges a node of the UNet dequantizes."""
    model = onnx.load(folder / "unet.onnx", load_external_data=False)
    (found,) = (one for one in model.graph.node if one.name == node)
    (steps,) = (tensor for tensor in model.graph.initializer if tensor.name == found.input[1])
    return steps.dims[0]


def test_what_is_read_has_a_step_for_each_channel(int8_engine):
    """Images are quantized by channel; rows are made so that one step fits all channels."""
    model = onnx.load(int8_engine("sd15") / "unet.onnx", load_external_data=False)
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    steps = {
        node.input[0]: sizes[node.input[1]]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    block = "mid_block.attentions.0"
    assert len(steps["mid_block.resnets.0.norm1.silu"]) == 1
    assert len(steps[f"{block}.norm"]) == 1
    assert steps[f"{block}.transformer_blocks.0.gated"] == []


def test_an_activation_is_quantized_once_for_all_that_read_it(int8_engine):
    folder = int8_engine("sd15")
    model = onnx.load(folder / "unet.onnx", load_external_data=False)
    read = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(read) == len(set(read))
    block = "mid_block.attentions.0.transformer_blocks.0"
    readers = {
        node.name: node.input[0]
        for node in model.graph.node
        if node.op_type == "MatMulIntegerToFloat"
    }
    shared = {readers[f"{block}.attn1.to_{kind}.matmul"] for kind in "qkv"}
    assert shared == {f"{block}.norm1.quantized"}


def test_pixels_are_moved_as_bytes(int8_engine):
    model = onnx.load(int8_engine("sd15") / "unet.onnx", load_external_data=False)
    producers = {node.output[0]: node for node in model.graph.node}
    name = "mid_block.attentions.0"
    assert producers[f"{name}.rows"].input[0] == f"{name}.pixels"
    assert producers[f"{name}.pixels"].input[0] == f"{name}.norm.quantized"


def test_the_decoder_has_int8_convolutions_and_the_rest_stays_fp32(int8_engine):
    folder = int8_engine("sd15")
    found = op_types(folder, "vae_decoder")
    assert found["decoder.mid_block.resnets.0.conv1.levels"] == "QLinearConv"
    assert found["decoder.up_blocks.0.upsamplers.0.conv.phase_01"] == "Conv"
    assert found["decoder.conv_in"] == found["decoder.conv_out"] == "Conv"
    for graph in ("text_encoder", "vae_encoder"):
        assert "QLinearConv" not in op_types(folder, graph).values()
        assert "MatMulIntegerToFloat" not in op_types(folder, graph).values()


def test_the_manifest_tells_the_precision_of_each_class_and_what_was_measured(int8_engine):
    manifest = read_manifest(int8_engine("sdxl"))
    assert manifest.precision == "int8"
    assert manifest.node_precision["denoiser convolutions"] == "int8"
    assert manifest.node_precision["denoiser ends and time"] == "fp32"
    report = manifest.quantization
    assert report.num_calibration_prompts == len(PROMPTS)
    assert report.psnr_min <= report.psnr_mean < 100
    assert report.num_pictures > 1


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_predictions_in_int8_stay_near_those_in_fp32(int8_engine, image_engine, name):
    found, expected = (_first_prediction(make(name)) for make in (int8_engine, image_engine))
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.15


def _first_prediction(folder):
    """What the denoiser makes of the noise of one request, whatever a picture comes of it."""
    engine = open_engine(folder)
    try:
        engine.add(make_request(folder, num_inference_steps=20))
        (denoising,) = engine.scheduler.schedule()
        return engine._run([denoising])[0]
    finally:
        engine.close()


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_picture_in_int8_does_not_depend_on_its_neighbours(int8_engine, name):
    folder = int8_engine(name)
    engine = open_engine(folder)
    requests = [
        make_request(folder, index, seed=index, prompt=prompt, guidance_scale=scale)
        for index, (prompt, scale) in enumerate((("red circle", 6.0), ("x", 1.0), ("y z", 19.0)))
    ]
    together = draw(engine, *requests)
    for request, picture in zip(requests, together, strict=True):
        alone = draw(engine, request)[0]
        assert np.array_equal(alone, picture)
    engine.close()


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_shallow_denoiser_is_in_int8_as_the_whole_one_is(int8_engine, name):
    folder = int8_engine(name)
    whole, shallow = (op_types(folder, graph) for graph in ("unet", "unet_shallow"))
    assert shallow.items() <= whole.items()
    assert "QLinearConv" in shallow.values()
    engine = open_engine(folder)
    engine.add(make_request(folder))
    (denoising,) = engine.scheduler.schedule()
    denoising.prepare(engine.runner)
    inputs = DenoiseBatch(
        denoising.model_input(),
        np.full(2, denoising.timestep, np.float32),
        denoising.conditioning,
    )
    expected, features = engine.runner.denoise_keeping(inputs)
    found = engine.runner.denoise_shallow(inputs, features)
    engine.close()
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() < 1e-5


def test_a_convolution_without_a_range_is_refused(pipeline, tmp_path):
    from export.diffusion.compile import compile_component

    plan = plan_image_engine(open_diffusion_checkpoint(pipeline("sd15"), "tiny"), "tiny")
    unet = next(graph for graph in plan.graphs if graph.place.kind == "denoiser")
    with pytest.raises(ValueError, match="is a convolution, which is int8 only in a range"):
        compile_component(unet, tmp_path, Int8Precision("denoiser", {}), lambda part: None)


def test_the_first_pattern_of_a_kind_decides_the_class():
    assert node_class("denoiser", "conv_in").name == "denoiser ends and time"
    assert node_class("denoiser", "down_blocks.0.resnets.0.time_emb_proj").layout == "fp32"
    assert node_class("denoiser", "down_blocks.0.downsamplers.0.conv").layout == "fp32"
    assert node_class("denoiser", "down_blocks.0.resnets.0.conv2").layout == "int8"
    assert node_class("vae_encoder", "encoder.down_blocks.0.resnets.0.conv1").layout == "fp32"


def test_nodes_without_an_output_range_are_matrix_multiplications():
    whole = ActivationRange(-1.0, 3.0)
    ranges = NodeRanges(whole, (whole,) * 4, np.zeros(4, np.float32))
    assert ranges.y is None
    assert ranges.x.zero_point == 64
