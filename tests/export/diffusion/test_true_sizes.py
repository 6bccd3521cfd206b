"""The tensors that the real models have, name by name, against the library's own classes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from export.diffusion.clip import config as clip
from export.diffusion.timestep import Sinusoids
from export.diffusion.unet.config import read_unet_config
from export.diffusion.unet.structure import expected_tensors
from export.diffusion.vae.config import read_vae_config
from export.diffusion.vae.structure import decoder_tensors, encoder_tensors

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SD15 = {"cross_attention_dim": 768}
SD21 = {
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
    "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# A distilled SDXL with its depths for each residual block, and no two levels alike.
PRUNED = SDXL | {
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
LCM = SD15 | {"time_cond_proj_dim": 256}


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def config_of(module):
    return json.loads(json.dumps(dict(module.config)))


@pytest.mark.parametrize(
    ("config", "num_parameters"),
    [
        (SD15, 859_520_964),
        (SD21, 865_910_724),
        (SDXL, 2_567_463_684),
        (PRUNED, None),
        (LCM, None),
    ],
    ids=["sd15", "sd21", "sdxl", "pruned", "lcm"],
)
def test_a_true_unet_has_exactly_the_tensors_that_the_graph_reads(config, num_parameters):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    shapes = expected_tensors(read_unet_config("unet/config.json", config_of(unet)))
    assert shapes == shapes_of(unet)
    if num_parameters is not None:
        assert sum(map(math.prod, shapes.values())) == num_parameters


def test_a_config_that_leaves_out_the_defaults_means_the_same():
    with torch.device("meta"):
        unet = UNet2DConditionModel()
    whole = config_of(unet)
    names = ("block_out_channels", "down_block_types", "up_block_types", "cross_attention_dim")
    short = {name: whole[name] for name in names}
    file = "unet/config.json"
    assert read_unet_config(file, short) == read_unet_config(file, whole)


def test_a_true_vae_has_exactly_the_tensors_that_the_graphs_read():
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    config = read_vae_config("vae/config.json", config_of(vae))
    assert encoder_tensors(config) | decoder_tensors(config) == shapes_of(vae)
    assert not encoder_tensors(config).keys() & decoder_tensors(config).keys()
    assert config.scale == 8


def test_a_true_text_encoder_has_exactly_the_tensors_that_the_graph_reads():
    settings = CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
        hidden_act="gelu",
    )
    with torch.device("meta"):
        encoder = CLIPTextModelWithProjection(settings)
    config = clip.read_text_encoder_config(
        "text_encoder_2/config.json", settings.to_dict(), has_projection=True
    )
    found = {
        name if name.startswith("text_projection") else f"text_model.{name}": shape
        for name, shape in clip.expected_tensors(config).items()
    }
    assert found == shapes_of(encoder)


@pytest.mark.parametrize(("width", "shift"), [(320, 0), (256, 0), (320, 1)])
@pytest.mark.parametrize("time", [1.0, 500.25, 999.0])
def test_the_waves_of_a_true_unet_are_those_of_diffusers(width, shift, time):
    angles = np.float32(time) * Sinusoids(width, False, shift).frequencies()
    found = np.concatenate([np.sin(angles), np.cos(angles)])
    expected = get_timestep_embedding(torch.tensor([time]), width, downscale_freq_shift=shift)
    # A frequency that another library's exp rounds the other way is off by 6e-8.
    assert np.abs(found - expected[0].numpy()).max() < 7e-8 * time + 1e-6
