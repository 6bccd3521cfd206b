"""Compiled halves of Qwen-Image's autoencoder against diffusers in fp32, for one frame."""

from __future__ import annotations

import pytest
import torch

from tests.export.diffusion.graphs import assert_close, compile_module, random
from tests.export.diffusion.qwen_image.tiny import make_vae

LATENT_SHAPES = [(1, 8, 8), (3, 6, 9)]
IMAGE_SHAPES = [(1, 32, 32), (3, 24, 40)]


def by_channel(numbers):
    return torch.tensor(numbers).view(1, -1, 1, 1)


def decoded(vae, latents):
    """As the pipeline of diffusers does it."""
    config = vae.config
    latents = latents * by_channel(config.latents_std) + by_channel(config.latents_mean)
    with torch.inference_mode():
        return vae.decode(latents[:, :, None]).sample[:, :, 0]


def encoded(vae, images):
    config = vae.config
    with torch.inference_mode():
        distribution = vae.encode(images[:, :, None]).latent_dist
    mean, std = distribution.mean[:, :, 0], distribution.std[:, :, 0]
    mean = (mean - by_channel(config.latents_mean)) / by_channel(config.latents_std)
    return mean, std / by_channel(config.latents_std)


def assert_parity(vae, folder):
    decoder = compile_module(vae, folder, "vae_decoder")
    encoder = compile_module(vae, folder, "vae_encoder")
    for batch, *size in LATENT_SHAPES:
        latents = random(batch, vae.config.z_dim, *size)
        expected = decoded(vae, latents)
        assert (expected.abs() < 1).float().mean() > 0.5, "most would be clipped anyway"
        assert_close(decoder.run(latents=latents)["images"], expected)
    for batch, *size in IMAGE_SHAPES:
        images = random(batch, vae.config.input_channels, *size)
        found, (mean, std) = encoder.run(images=images), encoded(vae, images)
        assert list(found) == ["latent_mean", "latent_std"]
        assert_close(found["latent_mean"], mean)
        assert_close(found["latent_std"], std)


def test_both_halves_equal_diffusers_at_any_size_and_batch(tmp_path):
    assert_parity(make_vae(), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_res_blocks": 2},
        {"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]},
        {"dim_mult": [2, 4], "temperal_downsample": [False], "base_dim": 6},
        {"temperal_downsample": [True, False]},
        {"z_dim": 2, "latents_mean": [0.5, -0.5], "latents_std": [2.0, 0.7]},
        {"input_channels": 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_setting_is_followed(tmp_path, changes):
    assert_parity(make_vae(**changes), tmp_path)


def test_an_extreme_variance_is_clipped_as_diffusers_clips_it(tmp_path):
    vae = make_vae()
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.z_dim :] = torch.tensor([-90.0, 0.0, 1.0, -70.0])
    images = random(2, 3, 16, 16)
    found = compile_module(vae, tmp_path, "vae_encoder").run(images=images)["latent_std"]
    expected = encoded(vae, images)[1]
    assert expected[:, 0].max() < 4e-7
    assert_close(found, expected)


def test_what_sees_only_time_is_not_compiled(tmp_path):
    vae = make_vae(temperal_downsample=[True, True])
    compile_module(vae, tmp_path, "vae_encoder")
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if "time_conv" in name:
                parameter.fill_(1e3)
            elif parameter.ndim == 5:
                parameter[:, :, :-1] = 1e3
    other = compile_module(vae, tmp_path / "other", "vae_encoder")
    images = random(1, 3, 16, 16)
    assert_close(other.run(images=images)["latent_mean"], encoded(vae, images)[0])
    sizes = {
        (folder / "vae_encoder.onnx.data").read_bytes() for folder in (tmp_path, tmp_path / "other")
    }
    assert len(sizes) == 1
