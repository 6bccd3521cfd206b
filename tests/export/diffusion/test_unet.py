"""Compiled UNets against diffusers in fp32."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from tests.export.diffusion.graphs import (
    assert_close,
    compile_module,
    random,
    row_differences,
)
from tests.export.diffusion.tiny_pipelines import UNET, V2_UNET, XL_UNET, randomize

TIMESTEPS = (981.0, 1.0, 500.25)
UNETS = {"sd15": UNET, "sd21": V2_UNET, "sdxl": XL_UNET}

# (batch, height, width, tokens); 9 x 13 halves to 5 x 7 and has to come back.
SHAPES = [(2, 16, 16, 77), (3, 8, 24, 5), (1, 9, 13, 77)]

SMALL = UNET | {"layers_per_block": 1}


def make_unet(**config):
    return randomize(UNet2DConditionModel(**config))


def inputs_for(unet, batch, height, width, num_tokens):
    config = unet.config
    inputs = {
        "sample": random(batch, config.in_channels, height, width, seed=1),
        "timestep": torch.tensor(TIMESTEPS[:batch]),
        "encoder_hidden_states": random(batch, num_tokens, config.cross_attention_dim, seed=2),
    }
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        inputs["text_embeds"] = random(batch, width, seed=3)
        sizes = [[512.0, 512, 0, 0, 512, 512], [64, 128, 8, 16, 64, 128], [1, 2, 3, 4, 5, 6]]
        inputs["time_ids"] = torch.tensor(sizes[:batch])
    if config.time_cond_proj_dim:
        inputs["timestep_cond"] = random(batch, config.time_cond_proj_dim, seed=4)
    return inputs


def reference(unet, inputs):
    inputs = dict(inputs)
    added = {name: inputs.pop(name) for name in ("text_embeds", "time_ids") if name in inputs}
    with torch.inference_mode():
        return unet(**inputs, added_cond_kwargs=added or None).sample


def assert_parity(unet, graph, shapes=SHAPES):
    for shape in shapes:
        inputs = inputs_for(unet, *shape)
        expected = reference(unet, inputs)
        assert_close(graph.run(**inputs)["model_output"], expected)
        if shape[0] > 1:
            assert row_differences(expected) > 0.1


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            unet = make_unet(**UNETS[name])
            made[name] = unet, compile_module(unet, tmp_path_factory.mktemp(name), "unet")
        return made[name]

    return get


@pytest.mark.parametrize("name", UNETS)
def test_every_family_equals_diffusers_at_any_size_and_batch(compiled, name):
    assert_parity(*compiled(name))


@pytest.mark.parametrize("name", UNETS)
def test_a_row_does_not_depend_on_the_rows_beside_it(compiled, name):
    unet, graph = compiled(name)
    inputs = inputs_for(unet, 3, 8, 8, 7)
    together = graph.run(**inputs)["model_output"]
    for row in range(3):
        alone = graph.run(**{key: value[row : row + 1] for key, value in inputs.items()})
        assert (alone["model_output"][0] - together[row]).abs().max() < 1e-5


def test_the_time_of_each_row_is_followed(compiled):
    unet, graph = compiled("sd15")
    inputs = inputs_for(unet, 1, 8, 8, 7)
    inputs = {name: value.repeat(3, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
    inputs["timestep"] = torch.tensor(TIMESTEPS)
    found = graph.run(**inputs)["model_output"]
    assert_close(found, reference(unet, inputs))
    assert row_differences(found) > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_head_dim": [2, 8]},
        {"layers_per_block": [1, 2], "attention_head_dim": [2, 8]},
        {"norm_eps": 1e-2},
        {"flip_sin_to_cos": False, "freq_shift": 1},
        {"downsample_padding": 0},
        {"conv_in_kernel": 5, "conv_out_kernel": 1},
        {"time_embedding_dim": 48},
        {"in_channels": 9, "out_channels": 8},
        {"act_fn": "swish"},
        {"mid_block_type": None},
        {"mid_block_type": "UNetMidBlock2D"},
        {"cross_attention_dim": 24, "use_linear_projection": True},
        {"time_cond_proj_dim": 20},
        {"upcast_attention": True},
        {
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        },
        {
            "transformer_layers_per_block": [[2], [1]],
            "reverse_transformer_layers_per_block": [[1, 2], [3, 1]],
        },
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_setting_is_followed(tmp_path, changes):
    unet = make_unet(**SMALL | changes)
    assert_parity(unet, compile_module(unet, tmp_path, "unet"), SHAPES[1:2])


def test_no_guidance_is_a_guidance_of_zeros(tmp_path):
    unet = make_unet(**SMALL, time_cond_proj_dim=20)
    inputs = inputs_for(unet, 2, 8, 8, 7) | {"timestep_cond": torch.zeros(2, 20)}
    found = compile_module(unet, tmp_path, "unet").run(**inputs)["model_output"]
    del inputs["timestep_cond"]
    assert_close(found, reference(unet, inputs))


def test_half_precision_weights_are_widened_exactly(tmp_path):
    unet = make_unet(**SMALL).half()
    graph = compile_module(unet, tmp_path, "unet")
    assert_parity(unet.float(), graph, SHAPES[1:2])


class Int8Matmuls:
    """What a mixed precision will look like: matrices in int8, convolutions as they are."""

    int8_max = 127

    def layout(self, node):
        is_matmul = any(part in node for part in (".attn", ".ff.", ".proj_"))
        return "int8" if is_matmul else "fp32"


def test_matrices_can_be_int8_and_keep_rows_independent(tmp_path):
    unet = make_unet(**SMALL)
    graph = compile_module(unet, tmp_path, "unet", Int8Matmuls())
    inputs = inputs_for(unet, 3, 8, 8, 7)
    found = graph.run(**inputs)["model_output"]
    expected = reference(unet, inputs)
    assert 1e-5 < (found - expected).norm() / expected.norm() < 0.05
    alone = graph.run(**{key: value[1:2] for key, value in inputs.items()})
    assert (alone["model_output"][0] - found[1]).abs().max() < 1e-5
