"""What the denoiser is told, beside diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from engines.image.conditioning import encode_request
from tests.engines.image.fake_runner import FakeImageRunner, make_request, make_spec


@pytest.mark.parametrize("width", [8, 9, 256])
def test_the_guidance_embedding_is_that_of_diffusers(width):
    scale = 7.5
    told = encode_request(
        make_request(1, guidance_scale=scale),
        make_spec(guidance="distilled", guidance_width=width),
        FakeImageRunner(),
    )
    embed = StableDiffusionPipeline.get_guidance_scale_embedding
    expected = embed(None, torch.tensor([scale - 1]), embedding_dim=width, dtype=torch.float64)
    assert told.guidance_waves.shape == (1, width)
    # Theirs rounds the step between frequencies to float32: 2e-5 on angles up to 6,500.
    assert np.abs(told.guidance_waves - expected.numpy()).max() < 1e-4


def test_the_sizes_are_those_of_a_picture_that_was_not_cropped():
    told = encode_request(
        make_request(1, height=6, width=8), make_spec(takes_sizes=True), FakeImageRunner()
    )
    assert told.time_ids.tolist() == [[6, 8, 0, 0, 6, 8]] * 2
