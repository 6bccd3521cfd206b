"""Compiled autoencoders against diffusers in fp32."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from export.diffusion.compile import plan_component
from export.diffusion.pipelines import PipelineGraph
from export.tensor_files import open_tensor_files
from tests.export.diffusion.graphs import (
    assert_close,
    compile_graph,
    compile_module,
    random,
    save_component,
)
from tests.export.diffusion.tiny_pipelines import VAE, randomize

LATENT_SHAPES = [(1, 16, 16), (3, 6, 9)]
IMAGE_SHAPES = [(1, 32, 32), (3, 12, 18), (1, 13, 15)]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def make_vae(**config):
    return randomize(AutoencoderKL(**VAE | config))


def decoded(vae, latents):
    """As the pipelines of diffusers do it."""
    latents = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    with torch.inference_mode():
        return vae.decode(latents).sample


def encoded(vae, images):
    with torch.inference_mode():
        distribution = vae.encode(images).latent_dist
    shift = vae.config.shift_factor or 0.0
    factor = vae.config.scaling_factor
    return (distribution.mean - shift) * factor, distribution.std * factor


def assert_parity(vae, folder, latent_shapes=LATENT_SHAPES, image_shapes=IMAGE_SHAPES):
    decoder = compile_module(vae, folder, "vae_decoder")
    encoder = compile_module(vae, folder, "vae_encoder")
    for batch, *size in latent_shapes:
        latents = random(batch, vae.config.latent_channels, *size)
        assert_close(decoder.run(latents=latents)["images"], decoded(vae, latents))
    for batch, *size in image_shapes:
        images = random(batch, vae.config.in_channels, *size)
        found, (mean, std) = encoder.run(images=images), encoded(vae, images)
        assert list(found) == ["latent_mean", "latent_std"]
        assert_close(found["latent_mean"], mean)
        assert_close(found["latent_std"], std)


def test_both_halves_equal_diffusers_at_any_size_and_batch(tmp_path):
    assert_parity(make_vae(scaling_factor=0.9), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling_factor": 1.3},
        {"scaling_factor": 0.7, "shift_factor": 0.3},
        {"use_quant_conv": False, "use_post_quant_conv": False},
        {"mid_block_add_attention": False},
        {"latent_channels": 8},
        {"in_channels": 1, "out_channels": 1},
        {"act_fn": "swish", "layers_per_block": 1},
        {
            "block_out_channels": (8, 16, 24),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
        },
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_setting_is_followed(tmp_path, changes):
    vae = make_vae(**{"scaling_factor": 1.0} | changes)
    assert_parity(vae, tmp_path, LATENT_SHAPES[1:], IMAGE_SHAPES[1:2])


def test_an_extreme_variance_is_clipped_as_diffusers_clips_it(tmp_path):
    vae = make_vae(scaling_factor=1.0)
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.latent_channels :] = torch.tensor([-90.0, 0.0, 1.0, -70.0])
    images = random(2, 3, 16, 16)
    found = compile_module(vae, tmp_path, "vae_encoder").run(images=images)["latent_std"]
    expected = encoded(vae, images)[1]
    assert expected[:, 0].max() < 4e-7
    assert_close(found, expected)


def test_a_sample_of_the_encoder_is_what_the_decoder_takes(tmp_path):
    vae = make_vae(scaling_factor=0.5)
    images, noise = random(1, 3, 32, 32), random(1, 4, 16, 16, seed=1)
    encoder = compile_module(vae, tmp_path, "vae_encoder").run(images=images)
    latents = encoder["latent_mean"] + encoder["latent_std"] * noise
    found = compile_module(vae, tmp_path, "vae_decoder").run(latents=latents)["images"]
    with torch.inference_mode():
        distribution = vae.encode(images).latent_dist
        expected = vae.decode(distribution.mean + distribution.std * noise).sample
    assert_close(found, expected)


def test_attention_under_its_old_names_gives_the_same_picture(tmp_path):
    vae = make_vae(scaling_factor=1.0)
    component = save_component(vae, tmp_path, "vae")
    path = tmp_path / "vae" / WEIGHTS
    tensors = load_file(path)
    new_to_old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in new_to_old.items():
        tensors = {name.replace(f".{new}.", f".{old}."): value for name, value in tensors.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in tensors
    save_file(tensors, path)
    component = dataclasses.replace(component, tensors=open_tensor_files(path.parent, path.stem))
    graph = PipelineGraph(name="vae_decoder", component="vae", kind="vae_decoder")
    latents = random(2, 4, 8, 8)
    found = compile_graph(plan_component(graph, component), tmp_path).run(latents=latents)
    assert_close(found["images"], decoded(vae, latents))
