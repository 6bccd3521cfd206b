"""Checkpoint in, picture out: whole pipelines beside diffusers, and beside themselves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as img2img

from tests.export.diffusion.pictures import (
    CLOSE,
    HEIGHT,
    NEGATIVE,
    WIDTH,
    Reference,
    difference,
    draw,
    make_request,
    noise_shape,
    open_engine,
    quiet,
    to_levels,
)


@pytest.fixture(scope="module")
def engine(image_engine):
    made = {}

    def get(name):
        if name not in made:
            made[name] = open_engine(image_engine(name))
        return made[name]

    yield get
    for opened in made.values():
        opened.close()


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
@pytest.mark.parametrize("scheduler", ["euler", "dpm++_2m"])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_picture_is_that_of_diffusers(
    engine, image_engine, pipeline, name, scheduler, guidance_scale
):
    request = make_request(image_engine(name), scheduler=scheduler, guidance_scale=guidance_scale)
    (picture,) = draw(engine(name), request)
    assert difference(picture, Reference(pipeline(name), scheduler).draw(request)) <= CLOSE


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_with_the_checkpoint_s_own_scheduler_and_a_negative_prompt_too(
    engine, image_engine, pipeline, name
):
    request = make_request(image_engine(name), negative=NEGATIVE)
    (picture,) = draw(engine(name), request)
    reference = Reference(pipeline(name))
    assert difference(picture, reference.draw(request, negative=NEGATIVE)) <= CLOSE
    (other,) = draw(engine(name), make_request(image_engine(name)))
    assert difference(picture, other) > CLOSE


def test_a_picture_from_an_image_is_that_of_diffusers(engine, image_engine, pipeline, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    request = make_request(image_engine("sd15"), image=image, strength=0.6)
    (picture,) = draw(engine("sd15"), request)
    reference = StableDiffusionImg2ImgPipeline(
        **Reference(pipeline("sd15")).pipeline.components, requires_safety_checker=False
    )
    reference.set_progress_bar_config(disable=True)
    generator = np.random.default_rng(request.seed)
    sampled, added = (
        torch.from_numpy(generator.standard_normal(noise_shape(request), np.float32))[None]
        for _ in range(2)
    )
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    monkeypatch.setattr(img2img, "randn_tensor", lambda *args, **kwargs: added)
    with quiet(), torch.inference_mode():
        latents = reference.vae.encode(pixels).latent_dist
        original = (latents.mean + latents.std * sampled) * reference.vae.config.scaling_factor
        images = reference(
            prompt="red circle",
            image=original,
            strength=request.strength,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            output_type="np",
        ).images
    assert difference(picture, to_levels(images)) <= CLOSE


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_requests_that_run_together_give_the_pictures_that_they_give_alone(
    engine, image_engine, name
):
    """Within 1 of 255: kernels round differently by the number of rows."""
    folder, opened = image_engine(name), engine(name)
    requests = [
        make_request(folder, 1, seed=1, num_inference_steps=9, scheduler="euler_a"),
        make_request(folder, 2, seed=2, num_inference_steps=4, prompt="blue star"),
        make_request(folder, 3, seed=3, num_inference_steps=6, guidance_scale=1.0),
    ]
    alone = [draw(opened, request)[0] for request in requests]
    together, num_runs = {}, opened.stats().num_steps
    for joins_after, request in zip((0, 2, 1), requests, strict=True):
        for _ in range(joins_after):
            together |= {o.image_id: o.picture for o in opened.step() if o.is_finished}
        opened.add(request)
    while opened.has_work:
        together |= {o.image_id: o.picture for o in opened.step() if o.is_finished}
    assert opened.stats().num_steps - num_runs == 9, "they did not share their runs"
    for request, expected in zip(requests, alone, strict=True):
        assert difference(together[request.image_id], expected) <= 1


def test_the_seed_decides_the_picture(engine, image_engine):
    folder, opened = image_engine("sd15"), engine("sd15")
    first, again, other = (draw(opened, make_request(folder, seed=seed))[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert difference(first, other) > CLOSE


def test_an_aborted_request_leaves_the_others_as_they_are(engine, image_engine):
    folder, opened = image_engine("sd15"), engine("sd15")
    kept = make_request(folder, 1)
    (alone,) = draw(opened, kept)
    opened.add(kept)
    opened.add(make_request(folder, 2, num_inference_steps=50))
    opened.step()
    opened.abort(2)
    assert opened.stats().num_running == 1
    found = [output for _ in range(4) for output in opened.step()]
    assert not opened.has_work
    assert {output.image_id for output in found} == {1}
    assert difference(found[-1].picture, alone) <= 1


def test_pictures_share_runs_up_to_a_size_that_follows_the_threads(image_engine):
    limits = []
    for options in ({}, {"max_batch_pixels": 5000}):
        opened = open_engine(image_engine("sd15"), **options)
        limits.append(opened.scheduler.config.max_batch_pixels)
        opened.close()
    assert limits == [2 * 256 * 256, 5000]
