"""What the reader finds in a diffusers folder, and what it says where something is wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.diffusion.checkpoint import is_diffusion_checkpoint, open_diffusion_checkpoint
from export.diffusion.compile import compile_component, plan_graphs
from export.errors import CheckpointError
from tests.checkpoints import edit_json
from tests.export.diffusion.graphs import FP32

UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def refusal(folder):
    """The sentence with which a checkpoint is refused before anything is written."""
    with pytest.raises(CheckpointError) as caught:
        plan_graphs(open_diffusion_checkpoint(folder, "tiny"))
    return str(caught.value)


def edit_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_a_pipeline_is_opened_with_its_components_and_its_scheduler(pipeline):
    checkpoint = open_diffusion_checkpoint(pipeline("sdxl"), "tiny/sdxl", "abc")
    assert (checkpoint.name, checkpoint.revision) == ("tiny/sdxl", "abc")
    assert checkpoint.pipeline.family == "stable-diffusion-xl"
    assert list(checkpoint.components) == ["text_encoder", "text_encoder_2", "unet", "vae"]
    assert checkpoint.scheduler_config["_class_name"] == "EulerDiscreteScheduler"
    assert checkpoint.index["force_zeros_for_empty_prompt"] is True
    assert is_diffusion_checkpoint(pipeline("sdxl"))
    assert not is_diffusion_checkpoint(pipeline("sdxl") / "unet")


def test_the_plan_names_a_graph_for_every_part_of_the_pipeline(pipeline):
    names = [graph.name for graph in plan_graphs(open_diffusion_checkpoint(pipeline("sd15"), "x"))]
    assert names == ["text_encoder", "unet", "vae_decoder", "vae_encoder"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert refusal(tmp_path / "none") == f"there is no folder {tmp_path / 'none'}"


def test_a_folder_without_an_index_is_not_a_diffusers_checkpoint(pipeline):
    folder = pipeline("sd15") / "unet"
    assert (
        refusal(folder) == f"{folder} is not a diffusers checkpoint: it holds no model_index.json"
    )


@pytest.mark.parametrize(
    ("class_name", "found"),
    [("KolorsPipeline", "KolorsPipeline"), (None, "not named"), (["FluxPipeline"], "FluxPip")],
)
def test_another_pipeline_is_told_which_ones_are_supported(own_pipeline, class_name, found):
    folder = own_pipeline("sd15")
    edit_json(folder / "model_index.json", _class_name=class_name)
    sentence = refusal(folder)
    assert found in sentence
    assert "it must be one of: StableDiffusionPipeline, StableDiffusionXLPipeline, St" in sentence


@pytest.mark.parametrize("entry", [None, [None, None], "unet"])
def test_a_component_that_the_index_does_not_name_is_missed(own_pipeline, entry):
    folder = own_pipeline("sd15")
    edit_json(folder / "model_index.json", unet=entry)
    assert refusal(folder) == (
        f"{folder / 'model_index.json'} names no unet, which the pipeline needs"
    )


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_component_without_its_folder_is_missed(own_pipeline, component):
    folder = own_pipeline("sd15")
    shutil.rmtree(folder / component)
    assert refusal(folder) == (
        f"model_index.json names the component {component}, but there is no folder "
        f"{folder / component}"
    )


def test_a_component_of_another_class_is_refused(own_pipeline):
    folder = own_pipeline("sd15")
    edit_json(folder / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    assert refusal(folder) == (
        "model_index.json names the class AutoencoderTiny for vae, but only AutoencoderKL is "
        "supported"
    )


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_missing_config_is_named(own_pipeline, file):
    path = own_pipeline("sd15") / file
    path.unlink()
    assert refusal(path.parents[1]) == f"{path.parent} holds no {path.name}"


def test_an_index_that_is_not_json_is_named(own_pipeline):
    folder = own_pipeline("sd15")
    (folder / "model_index.json").write_text("{")
    assert refusal(folder).startswith(f"{folder / 'model_index.json'} is not valid JSON")


def test_pickled_weights_are_never_read(own_pipeline):
    folder = own_pipeline("sd15")
    (folder / UNET_WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    sentence = refusal(folder)
    assert "holds pickled weights (diffusion_pytorch_model.bin)" in sentence
    assert "convert them to safetensors first" in sentence


def test_missing_weights_are_named_as_diffusers_names_them(own_pipeline):
    folder = own_pipeline("sd15")
    (folder / UNET_WEIGHTS).unlink()
    assert refusal(folder) == (
        f"{folder / 'unet'} holds neither diffusion_pytorch_model.safetensors nor "
        "diffusion_pytorch_model.safetensors.index.json"
    )


def test_truncated_weights_are_refused(own_pipeline):
    folder = own_pipeline("sd15")
    path = folder / UNET_WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    assert refusal(folder).startswith(f"{path} is truncated: it has {path.stat().st_size} bytes")


def test_damaged_weights_are_refused(own_pipeline):
    folder = own_pipeline("sd15")
    path = folder / UNET_WEIGHTS
    content = bytearray(path.read_bytes())
    content[8:40] = b"x" * 32
    path.write_bytes(content)
    assert refusal(folder) == f"{path} is not a safetensors file, or is damaged"


@pytest.mark.parametrize(
    ("file", "component"),
    [(UNET_WEIGHTS, "unet"), ("vae/diffusion_pytorch_model.safetensors", "vae")],
)
def test_a_missing_tensor_is_named_with_its_component(own_pipeline, file, component):
    folder = own_pipeline("sd15")
    name = {"unet": "mid_block.attentions.0.proj_in.bias", "vae": "quant_conv.bias"}[component]
    edit_tensors(folder / file, lambda tensors: tensors.pop(name))
    assert refusal(folder) == f"{component}: the checkpoint has no tensor {name!r}"


def test_a_tensor_of_another_shape_is_refused(own_pipeline):
    folder = own_pipeline("sd15")
    edit_json(folder / "unet" / "config.json", conv_out_kernel=1)
    assert refusal(folder) == (
        "unet: tensor 'conv_out.weight' in diffusion_pytorch_model.safetensors has the shape "
        "[4, 32, 3, 3], but config.json asks for [4, 32, 1, 1]"
    )


def test_numbers_that_are_none_end_the_compilation(own_pipeline, tmp_path):
    folder = own_pipeline("sd15")
    edit_tensors(
        folder / UNET_WEIGHTS, lambda tensors: tensors["conv_in.bias"].fill(np.float32("nan"))
    )
    unet = plan_graphs(open_diffusion_checkpoint(folder, "tiny"))[1]
    with pytest.raises(CheckpointError, match=r"unet: tensor 'conv_in.bias' .* holds NaN"):
        compile_component(unet, tmp_path, FP32, advance=lambda part: None)


def test_weights_in_half_precision_are_taken_where_there_are_no_others(own_pipeline):
    folder = own_pipeline("sd15")
    for path in list(folder.rglob("*.safetensors")):
        tensors = {name: value.astype(np.float16) for name, value in load_file(path).items()}
        path.unlink()
        save_file(tensors, path.with_suffix(".fp16.safetensors"))
    components = open_diffusion_checkpoint(folder, "tiny").components
    for component in components.values():
        assert component.tensors.paths[0].name.endswith(".fp16.safetensors")
    assert len(plan_graphs(open_diffusion_checkpoint(folder, "tiny"))) == 4


def test_full_weights_come_before_those_in_half_precision(own_pipeline):
    folder = own_pipeline("sd15")
    path = folder / UNET_WEIGHTS
    shutil.copy(path, path.with_suffix(".fp16.safetensors"))
    assert open_diffusion_checkpoint(folder, "x").components["unet"].tensors.paths == [path]


def test_weights_in_shards_are_read_as_one(own_pipeline, pipeline):
    folder = own_pipeline("sd15")
    tensors = load_file(folder / UNET_WEIGHTS)
    (folder / UNET_WEIGHTS).unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / "unet" / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = folder / f"{UNET_WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    plan_graphs(open_diffusion_checkpoint(folder, "tiny"))
    opened = open_diffusion_checkpoint(folder, "tiny").components["unet"].tensors
    whole = open_diffusion_checkpoint(pipeline("sd15"), "tiny").components["unet"].tensors
    assert set(opened) == set(whole)
