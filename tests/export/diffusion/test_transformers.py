"""Compiled transformers of SD3 and FLUX against diffusers in fp32."""

from __future__ import annotations

import json
import math

import onnx
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from export.diffusion.flux.config import flux_tensors, read_flux_config
from export.diffusion.sd3.config import read_sd3_config, sd3_tensors
from export.errors import CheckpointError
from export.precision import UniformPrecision
from tests.export.diffusion.graphs import (
    assert_close,
    compile_module,
    compile_opened,
    open_component,
    random,
    row_differences,
    save_component,
)
from tests.export.diffusion.tiny_pipelines import FLUX, SD3, SD35, randomize

SHAPES = [(1, 8, 8, 5), (2, 6, 14, 9)]  # batch, height and width in latents, tokens
TIMES = (937.5, 3.2)
# Times and guidance are waves at up to 3,500 radians, which float32 tells to 2e-4: on some
# processors the runtime rounds them in another direction than torch does.
WAVES = 5e-5

TRUE_SD3 = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
TRUE_SD35 = TRUE_SD3 | {"qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13))}


def inputs_of(config, shape, latent_channels):
    batch, height, width, num_tokens = shape
    return {
        "sample": random(batch, latent_channels, height, width),
        "timestep": torch.tensor(TIMES[:batch]),
        "encoder_hidden_states": random(batch, num_tokens, config["joint_attention_dim"], seed=1),
        "text_embeds": random(batch, config["pooled_projection_dim"], seed=2),
    }


def run_sd3(model, inputs):
    with torch.inference_mode():
        return model(
            inputs["sample"],
            encoder_hidden_states=inputs["encoder_hidden_states"],
            pooled_projections=inputs["text_embeds"],
            timestep=inputs["timestep"],
        ).sample


def run_flux(model, inputs):
    """As the pipeline does: latents are packed and times are fractions."""
    sample, text = inputs["sample"], inputs["encoder_hidden_states"]
    batch, channels, height, width = sample.shape
    with torch.inference_mode():
        rows = model(
            FluxPipeline._pack_latents(sample, batch, channels, height, width),
            encoder_hidden_states=text,
            pooled_projections=inputs["text_embeds"],
            timestep=inputs["timestep"] / 1000,
            guidance=inputs.get("guidance"),
            img_ids=FluxPipeline._prepare_latent_image_ids(
                batch, height // 2, width // 2, "cpu", torch.float32
            ),
            txt_ids=torch.zeros(text.shape[1], 3),
        ).sample
    return FluxPipeline._unpack_latents(rows, height * 8, width * 8, 8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("config", [SD3, SD35], ids=["sd3", "sd3.5"])
def test_the_flow_of_sd3_equals_diffusers(tmp_path, config, shape):
    model = randomize(SD3Transformer2DModel(**config))
    inputs = inputs_of(config, shape, config["in_channels"])
    found = compile_module(model, tmp_path, "transformer").run(**inputs)
    assert_close(found["model_output"], run_sd3(model, inputs), WAVES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_guidance", [True, False], ids=["dev", "schnell"])
def test_the_flow_of_flux_equals_diffusers(tmp_path, has_guidance, shape):
    model = randomize(FluxTransformer2DModel(**FLUX, guidance_embeds=has_guidance))
    inputs = inputs_of(FLUX, shape, FLUX["in_channels"] // 4)
    if has_guidance:
        inputs["guidance"] = torch.tensor([3.5, 1.2])[: shape[0]]
    graph = compile_module(model, tmp_path, "transformer")
    assert set(graph.inputs) == set(inputs)
    assert_close(graph.run(**inputs)["model_output"], run_flux(model, inputs), WAVES)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_int8_by_rows_stays_near_and_sees_no_other_row(tmp_path, name):
    if name == "sd3":
        model, config, channels = SD3Transformer2DModel(**SD35), SD35, SD35["in_channels"]
    else:
        model, config = FluxTransformer2DModel(**FLUX), FLUX
        channels = FLUX["in_channels"] // 4
    inputs = inputs_of(config, (2, 6, 8, 4), channels)
    int8 = compile_module(randomize(model), tmp_path, "transformer", UniformPrecision("int8"))
    assert "MatMulIntegerToFloat" in operators_of(tmp_path / "transformer.onnx")
    found = int8.run(**inputs)["model_output"]
    expected = (run_sd3 if name == "sd3" else run_flux)(model, inputs)
    error = (found - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.05
    alone = int8.run(**{key: value[:1] for key, value in inputs.items()})["model_output"]
    assert_close(found[:1], alone, tolerance=1e-4)


def operators_of(path):
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_everything_that_a_row_is_told_matters_and_no_row_sees_another(tmp_path, name):
    if name == "sd3":
        model, config, channels = SD3Transformer2DModel(**SD35), SD35, SD35["in_channels"]
    else:
        model, config = FluxTransformer2DModel(**FLUX, guidance_embeds=True), FLUX
        channels = FLUX["in_channels"] // 4
    graph = compile_module(randomize(model), tmp_path, "transformer")
    inputs = inputs_of(config, (2, 6, 8, 4), channels)
    if name == "flux":
        inputs["guidance"] = torch.tensor([3.5, 1.2])
    together = graph.run(**inputs)["model_output"]
    first = {key: value[:1] for key, value in inputs.items()}
    assert_close(together[:1], graph.run(**first)["model_output"])
    for told in inputs:
        mixed = torch.cat([first["sample"]] * 2)
        changed = {key: torch.cat([value, value]) for key, value in first.items()}
        changed[told] = inputs[told]
        assert told == "sample" or torch.equal(changed["sample"], mixed)
        assert row_differences(graph.run(**changed)["model_output"]) > 1e-3, told


def test_a_row_far_from_the_first_patch_is_turned_as_in_diffusers(tmp_path):
    model = randomize(FluxTransformer2DModel(**FLUX))
    inputs = inputs_of(FLUX, (1, 2, 900, 3), FLUX["in_channels"] // 4)
    found = compile_module(model, tmp_path, "transformer").run(**inputs)
    assert_close(found["model_output"], run_flux(model, inputs))


def test_a_table_of_positions_that_is_none_is_refused(tmp_path):
    model = SD3Transformer2DModel(**SD3)
    with torch.no_grad():
        model.pos_embed.pos_embed[0, 5, 3] += 0.1
    with pytest.raises(CheckpointError, match=r"transformer: tensor 'pos_embed\.pos_embed' is no"):
        compile_module(model, tmp_path, "transformer")


def test_a_missing_tensor_is_named_with_its_component(tmp_path):
    save_component(FluxTransformer2DModel(**FLUX), tmp_path, "transformer")
    path = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["x_embedder.bias"]
    save_file(tensors, path)
    component = open_component(tmp_path, "transformer", "FluxTransformer2DModel")
    with pytest.raises(CheckpointError, match=r"transformer: the checkpoint has no tensor 'x_emb"):
        compile_opened(component, tmp_path, "transformer")


@pytest.mark.parametrize("config", [TRUE_SD3, TRUE_SD35], ids=["sd3", "sd3.5"])
def test_a_true_sd3_has_exactly_the_tensors_that_the_graph_reads(config):
    with torch.device("meta"):
        model = SD3Transformer2DModel(**config)
    assert sd3_tensors(read_sd3_config("transformer/config.json", plain(model))) == shapes_of(model)


@pytest.mark.parametrize(
    ("has_guidance", "num_parameters"), [(True, 11_901_408_320), (False, 11_891_178_560)]
)
def test_a_true_flux_has_exactly_the_tensors_that_the_graph_reads(has_guidance, num_parameters):
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=has_guidance)
    shapes = flux_tensors(read_flux_config("transformer/config.json", plain(model)))
    assert shapes == shapes_of(model)
    assert sum(map(math.prod, shapes.values())) == num_parameters


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def plain(module):
    return json.loads(json.dumps(dict(module.config)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"qk_norm": "layer_norm"}, 'qk_norm = "layer_norm", but only null and "rms_norm" are'),
        ({"caption_projection_dim": 40}, "caption_projection_dim = 40, but its 2 attention heads"),
        ({"dual_attention_layers": "all"}, "dual_attention_layers = 'all', which is not a list"),
        ({"patch_size": 0}, "patch_size = 0, which is not an integer of 1 or more"),
    ],
)
def test_an_sd3_that_is_not_supported_is_told_why(changes, sentence):
    assert refusal(read_sd3_config, SD3 | changes).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_size": 2}, "patch_size = 2, but only 1 is supported"),
        ({"in_channels": 18}, "in_channels = 18, which is no multiple of 4, the latents of a"),
        ({"axes_dims_rope": [4, 4, 4]}, "axes_dims_rope = [4, 4, 4], but their sum must be"),
        ({"axes_dims_rope": [8, 8]}, "axes_dims_rope = [8, 8], but it must be three even"),
        ({"guidance_embeds": "yes"}, 'guidance_embeds = "yes", which is neither true nor false'),
    ],
)
def test_a_flux_that_is_not_supported_is_told_why(changes, sentence):
    assert refusal(read_flux_config, FLUX | changes).startswith(sentence)


def refusal(read, config):
    with pytest.raises(CheckpointError) as caught:
        read("transformer/config.json", json.loads(json.dumps(config)))
    return str(caught.value).removeprefix("transformer/config.json has ")
