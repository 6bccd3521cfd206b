"""Checkpoint in, picture out, for Qwen-Image: beside diffusers, and beside itself alone."""

from __future__ import annotations

import dataclasses

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_img2img

from engines.errors import InvalidRequest
from engines.image.schedulers.schedule import SHORT_NAMES
from engines.manifest import read_manifest
from tests.export.diffusion.pictures import (
    CLOSE,
    HEIGHT,
    NEGATIVE,
    PROMPT,
    WIDTH,
    difference,
    draw,
    make_request,
    open_engine,
    quiet,
    to_levels,
    token_ids,
)

SCALE, LATENT_CHANNELS = 4, 4
NO_TEXT = " "  # as the model card does
LONG_PROMPT = "a small blue star over a big red circle, drawn with chalk"


@pytest.fixture(scope="module")
def folder(image_engine):
    return image_engine("qwen-image")


@pytest.fixture(scope="module")
def engine(folder):
    opened = open_engine(folder)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def checkpoint(pipeline):
    return pipeline("qwen-image")


def noise(generator, request):
    shape = LATENT_CHANNELS, request.height // SCALE, request.width // SCALE
    return torch.from_numpy(generator.standard_normal(shape, np.float32))[None]


def open_reference(checkpoint, scheduler=None, pipeline_class=diffusers.QwenImagePipeline):
    reference = pipeline_class.from_pretrained(checkpoint)
    reference.set_progress_bar_config(disable=True)
    if scheduler is not None:
        class_name, pinned = SHORT_NAMES[scheduler]
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 1.0}
        with quiet():
            reference.scheduler = getattr(diffusers, class_name).from_config(
                reference.scheduler.config, **flow | pinned
            )
    return reference


def reference_picture(reference, request, *, prompt=PROMPT, negative=NO_TEXT, **arguments):
    with quiet(), torch.inference_mode():
        images = reference(
            prompt=prompt,
            negative_prompt=negative,
            true_cfg_scale=request.guidance_scale,
            height=request.height,
            width=request.width,
            num_inference_steps=request.num_inference_steps,
            output_type="np",
            **arguments,
        ).images
    return to_levels(images)


def drawn_by_diffusers(checkpoint, request, scheduler=None, **arguments):
    reference = open_reference(checkpoint, scheduler)
    first = noise(np.random.default_rng(request.seed), request)
    packed = reference._pack_latents(first, *first.shape)
    return reference_picture(reference, request, latents=packed, **arguments)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("scheduler", ["flow_match_euler", "unipc"])
def test_a_picture_is_that_of_diffusers(engine, folder, checkpoint, scheduler, guidance_scale):
    request = make_request(folder, scheduler=scheduler, guidance_scale=guidance_scale)
    (picture,) = draw(engine, request)
    if scheduler == "flow_match_euler":
        expected = drawn_by_diffusers(checkpoint, request)
    else:  # on its own levels of noise, not on those that the pipeline gives every scheduler
        own = np.linspace(1, 1 / 1000, request.num_inference_steps + 1)[:-1]
        expected = drawn_by_diffusers(checkpoint, request, scheduler, sigmas=own)
    assert difference(picture, expected) <= CLOSE


def test_with_a_negative_prompt_and_another_size_too(engine, folder, checkpoint):
    request = make_request(folder, negative=NEGATIVE, prompt=LONG_PROMPT, height=64, width=32)
    (picture,) = draw(engine, request)
    expected = drawn_by_diffusers(checkpoint, request, prompt=LONG_PROMPT, negative=NEGATIVE)
    assert difference(picture, expected) <= CLOSE
    (other,) = draw(engine, make_request(folder, prompt=LONG_PROMPT, height=64, width=32))
    assert difference(picture, other) > CLOSE


def test_a_guided_prediction_keeps_the_length_of_the_prompt_s(engine, folder, checkpoint):
    request = make_request(folder, guidance_scale=12.0, num_inference_steps=3)
    (picture,) = draw(engine, request)
    expected = drawn_by_diffusers(checkpoint, request)
    assert difference(picture, expected) <= CLOSE
    spec = read_manifest(folder).image
    assert spec.rescales_guidance
    assert spec.patch_size == 2


def test_a_picture_from_an_image_is_that_of_diffusers(engine, folder, checkpoint, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    request = make_request(folder, image=image, strength=0.6)
    (picture,) = draw(engine, request)
    reference = open_reference(checkpoint, pipeline_class=diffusers.QwenImageImg2ImgPipeline)
    generator = np.random.default_rng(request.seed)
    sampled, added = noise(generator, request), noise(generator, request)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    vae = reference.vae
    with torch.inference_mode():
        distribution = vae.encode(pixels).latent_dist
    mean, std = (
        torch.tensor(numbers).view(1, -1, 1, 1)
        for numbers in (vae.config.latents_mean, vae.config.latents_std)
    )
    latents = (distribution.mean + distribution.std * sampled[:, :, None])[:, :, 0]
    monkeypatch.setattr(
        pipeline_qwenimage_img2img, "randn_tensor", lambda *args, **kwargs: added[:, None]
    )
    expected = reference_picture(
        reference, request, image=(latents - mean) / std, strength=request.strength
    )
    assert difference(picture, expected) <= CLOSE


def test_requests_with_texts_of_different_length_give_the_pictures_that_they_give_alone(
    engine, folder
):
    """Within 1 of 255: kernels round differently by the number of rows."""
    requests = [
        make_request(folder, 1, seed=1, num_inference_steps=6, prompt=LONG_PROMPT),
        make_request(folder, 2, seed=2, num_inference_steps=3, prompt="b", negative=LONG_PROMPT),
        make_request(folder, 3, seed=3, num_inference_steps=4, guidance_scale=1.0),
    ]
    lengths = {len(request.prompt_token_ids[0]) for request in requests}
    assert len(lengths) == len(requests)
    alone = [draw(engine, request)[0] for request in requests]
    num_runs = engine.stats().num_steps
    together = draw(engine, *requests)
    assert engine.stats().num_steps - num_runs == 6, "they did not share their runs"
    for picture, expected in zip(together, alone, strict=True):
        assert difference(picture, expected) <= 1


def test_a_text_stands_in_the_template_and_is_not_padded(folder):
    (encoder,) = read_manifest(folder).image.text_encoders
    assert encoder.pad_token_id is None
    assert encoder.max_length == 34 + 512
    (ids,) = token_ids(folder, "red circle")
    assert ids[: len(encoder.prefix_token_ids)] == encoder.prefix_token_ids
    assert ids[-len(encoder.suffix_token_ids) :] == encoder.suffix_token_ids
    num_frame = len(encoder.prefix_token_ids) + len(encoder.suffix_token_ids)
    assert len(ids) - num_frame == 2  # red, circle with the space before it
    (longest,) = token_ids(folder, "red circle" * 1000)
    assert len(longest) == encoder.max_length
    assert longest[-len(encoder.suffix_token_ids) :] == encoder.suffix_token_ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 60}, "width is 60, but it must be a multiple of 8"),
        ({"scheduler": "ddim"}, "ddim"),
        ({"height": 4096, "width": 4096}, "pixels"),
    ],
)
def test_what_the_model_cannot_do_is_refused_by_name(engine, folder, changes, message):
    request = dataclasses.replace(make_request(folder), **changes)
    with pytest.raises(InvalidRequest, match=message):
        engine.add(request)
    assert not engine.has_work
