"""Configs that ask for what is not supported, and the sentences that say so."""

from __future__ import annotations

import json

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel

from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.clip.config import read_text_encoder_config
from export.diffusion.compile import compile_component, plan_graphs
from export.diffusion.unet.config import read_unet_config
from export.diffusion.vae.config import read_vae_config
from export.errors import CheckpointError
from export.precision import UniformPrecision
from tests.checkpoints import edit_json
from tests.export.diffusion.tiny_pipelines import TEXT_ENCODER, UNET, VAE, XL_UNET


def plain(config):
    return json.loads(json.dumps(config))


def refuse(read, file, config):
    with pytest.raises(CheckpointError) as caught:
        read(file, plain(config))
    sentence = str(caught.value)
    assert sentence.startswith(f"{file} has ")
    return sentence.removeprefix(f"{file} has ")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"act_fn": "mish"}, 'act_fn = "mish", but only "silu" and "swish" are supported'),
        ({"class_embed_type": "timestep"}, 'class_embed_type = "timestep", but only null is'),
        ({"num_class_embeds": 1000}, "num_class_embeds = 1000, but only null is supported"),
        ({"only_cross_attention": True}, "only_cross_attention = true, but only false is"),
        ({"only_cross_attention": [True, False]}, "only_cross_attention = [true, false], but"),
        ({"dual_cross_attention": True}, "dual_cross_attention = true, but only false is"),
        ({"resnet_time_scale_shift": "scale_shift"}, 'resnet_time_scale_shift = "scale_shift"'),
        ({"time_embedding_type": "fourier"}, 'time_embedding_type = "fourier", but only'),
        ({"encoder_hid_dim_type": "text_proj"}, 'encoder_hid_dim_type = "text_proj"'),
        ({"addition_embed_type": "image"}, 'addition_embed_type = "image", but only null and'),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type ="),
        ({"num_attention_heads": 4}, "num_attention_heads = 4, but only null is supported"),
        ({"attention_type": "gated"}, 'attention_type = "gated", but only "default" is'),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor = 2, but only 1 is"),
        ({"downsample_padding": 2}, "downsample_padding = 2, but only 1 and 0 are supported"),
        (
            {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]},
            'down_block_types = "AttnDownBlock2D", but only "DownBlock2D" and',
        ),
        ({"up_block_types": ["UpBlock2D"]}, "1 up_block_types, but 2 block_out_channels"),
        ({"norm_num_groups": None}, "no field 'norm_num_groups'"),
        ({"norm_num_groups": 5}, "32 channels in a block, which is no multiple of norm_num_"),
        ({"attention_head_dim": 5}, "32 channels in a block, which is no multiple of its att"),
        ({"attention_head_dim": [4, 4, 4]}, "3 numbers in attention_head_dim, but 2 blocks"),
        ({"layers_per_block": "2"}, 'layers_per_block = "2", which is not an integer of 1'),
        ({"layers_per_block": 0}, "layers_per_block = 0, which is not an integer of 1 or more"),
        ({"layers_per_block": True}, "layers_per_block = true, which is not an integer"),
        ({"norm_eps": "small"}, 'norm_eps = "small", which is not a number'),
        ({"use_linear_projection": 1}, "use_linear_projection = 1, which is neither true nor"),
        ({"block_out_channels": []}, "block_out_channels = [], which is not a list of names or"),
        ({"cross_attention_dim": [32, 64]}, "cross_attention_dim = [32, 64], but only one"),
        ({"conv_in_kernel": 4}, "conv_in_kernel = 4, but only odd kernels keep an image's"),
        ({"freq_shift": 16}, "block_out_channels that asks for 32 waves"),
        ({"transformer_layers_per_block": [1, 1, 1]}, "3 entries in transformer_layers_per_"),
        ({"transformer_layers_per_block": [[1, 1], 1]}, "[1, 1] in transformer_layers_per_bl"),
    ],
)
def test_a_unet_that_is_not_supported_is_told_why(changes, sentence):
    assert refuse(read_unet_config, "unet/config.json", UNET | changes).startswith(sentence)


def test_a_pooled_text_without_room_is_refused():
    config = XL_UNET | {"projection_class_embeddings_input_dim": 48}
    sentence = refuse(read_unet_config, "unet/config.json", config)
    assert sentence == (
        "projection_class_embeddings_input_dim with no room for 6 numbers of 8 waves and a prompt"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"act_fn": "gelu"}, 'act_fn = "gelu", but only "silu" and "swish" are supported'),
        ({"latents_mean": [0.1]}, "latents_mean = [0.1], but only null is supported"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, 'down_block_types = "AttnDown'),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "1 up_block_types, but 2 block_out_channels"),
        ({"norm_num_groups": 12}, "16 channels in a block, which is no multiple of norm_num"),
        ({"scaling_factor": 0}, "scaling_factor = 0.0, which is not above 0"),
        ({"scaling_factor": [1]}, "scaling_factor = [1], which is not a number"),
    ],
)
def test_a_vae_that_is_not_supported_is_told_why(changes, sentence):
    assert refuse(read_vae_config, "vae/config.json", VAE | changes).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_act": "relu"}, 'hidden_act = "relu", but only "quick_gelu" and "gelu" are'),
        ({"eos_token_id": [2, 3]}, "eos_token_id = [2, 3], which is not an integer of 0 or more"),
        ({"num_attention_heads": 5}, "hidden_size = 32, which is no multiple of its 5 attention"),
        ({"use_attention_mask": True}, "use_attention_mask = true, but only false and null are"),
    ],
)
def test_a_text_encoder_that_is_not_supported_is_told_why(changes, sentence):
    def read(file, config):
        return read_text_encoder_config(file, config, has_projection=False)

    file = "text_encoder/config.json"
    assert refuse(read, file, TEXT_ENCODER | changes).startswith(sentence)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: (UNet2DConditionModel(**UNET | {"cross_attention_dim": 16}), "unet"),
            "cross_attention_dim = 16, but the other components' configs have text rows of 32",
        ),
        (
            lambda: (UNet2DConditionModel(**UNET | {"in_channels": 9}), "unet"),
            "in_channels = 9, but the other components' configs have latent channels of 4",
        ),
        (
            lambda: (UNet2DConditionModel(**UNET | {"out_channels": 8}), "unet"),
            "out_channels = 8, but the other components' configs have latent channels of 4",
        ),
        (
            lambda: (AutoencoderKL(**VAE, latent_channels=16), "vae"),
            "in_channels = 4, but the other components' configs have latent channels of 16",
        ),
        (
            lambda: (
                UNet2DConditionModel(
                    **UNET,
                    addition_embed_type="text_time",
                    addition_time_embed_dim=8,
                    projection_class_embeddings_input_dim=72,
                ),
                "unet",
            ),
            "text_embeds width = 24, but the other components' configs have projected text of 0",
        ),
    ],
    ids=["context", "in", "out", "latents", "pooled"],
)
def test_components_that_do_not_fit_each_other_are_refused(own_pipeline, make, sentence):
    folder = own_pipeline("sd15")
    module, name = make()
    module.save_pretrained(folder / name)
    with pytest.raises(CheckpointError) as caught:
        plan_graphs(open_diffusion_checkpoint(folder, "tiny"))
    assert str(caught.value) == f"unet/config.json has {sentence}"


def test_an_unsupported_config_is_refused_before_weights_are_read(own_pipeline):
    folder = own_pipeline("sd15")
    edit_json(folder / "unet" / "config.json", act_fn="mish")
    with pytest.raises(CheckpointError, match=r"^unet/config.json has act_fn"):
        plan_graphs(open_diffusion_checkpoint(folder, "tiny"))


def test_an_int8_convolution_without_a_range_is_refused(pipeline, tmp_path):
    unet = plan_graphs(open_diffusion_checkpoint(pipeline("sd15"), "tiny"))[1]
    with pytest.raises(ValueError, match="conv_in is a convolution, which is int8 only in a range"):
        compile_component(unet, tmp_path, UniformPrecision("int8"), advance=lambda part: None)
