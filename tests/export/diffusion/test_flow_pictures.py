"""Checkpoint in, picture out, for SD3 and FLUX: beside diffusers, and beside themselves alone."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
from diffusers.pipelines.flux import pipeline_flux_img2img
from diffusers.pipelines.stable_diffusion_3 import pipeline_stable_diffusion_3_img2img

from engines.errors import InvalidRequest
from tests.export.diffusion.flow_pictures import FlowReference
from tests.export.diffusion.pictures import (
    CLOSE,
    HEIGHT,
    NEGATIVE,
    WIDTH,
    difference,
    draw,
    make_request,
    open_engine,
    token_ids,
)

FROM_IMAGE = {
    "sd3": (diffusers.StableDiffusion3Img2ImgPipeline, pipeline_stable_diffusion_3_img2img),
    "flux-dev": (diffusers.FluxImg2ImgPipeline, pipeline_flux_img2img),
}


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
@pytest.mark.parametrize("scheduler", ["flow_match_euler", "dpm++_2m"])
@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_a_picture_is_that_of_diffusers(
    engine, image_engine, pipeline, name, scheduler, guidance_scale
):
    request = make_request(image_engine(name), scheduler=scheduler, guidance_scale=guidance_scale)
    (picture,) = draw(engine(name), request)
    assert difference(picture, FlowReference(pipeline(name), scheduler).draw(request)) <= CLOSE


@pytest.mark.parametrize("name", ["sd3", "sd3.5"])
def test_with_a_negative_prompt_too(engine, image_engine, pipeline, name):
    request = make_request(image_engine(name), negative=NEGATIVE)
    (picture,) = draw(engine(name), request)
    reference = FlowReference(pipeline(name))
    assert difference(picture, reference.draw(request, negative=NEGATIVE)) <= CLOSE
    (other,) = draw(engine(name), make_request(image_engine(name)))
    assert difference(picture, other) > CLOSE


def test_a_model_of_few_steps_draws_as_in_diffusers(engine, image_engine, pipeline):
    request = make_request(image_engine("flux-schnell"), guidance_scale=1.0, num_inference_steps=4)
    (picture,) = draw(engine("flux-schnell"), request)
    assert difference(picture, FlowReference(pipeline("flux-schnell")).draw(request)) <= CLOSE


@pytest.mark.parametrize("name", list(FROM_IMAGE))
def test_a_picture_from_an_image_is_that_of_diffusers(
    engine, image_engine, pipeline, monkeypatch, name
):
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    request = make_request(image_engine(name), image=image, strength=0.6)
    (picture,) = draw(engine(name), request)
    pipeline_class, module = FROM_IMAGE[name]
    reference = FlowReference(pipeline(name), pipeline_class=pipeline_class)
    expected = reference.draw_from_image(request, image, module, monkeypatch)
    assert difference(picture, expected) <= CLOSE


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_requests_that_run_together_give_the_pictures_that_they_give_alone(
    engine, image_engine, name
):
    """Within 1 of 255: kernels round differently by the number of rows."""
    folder, opened = image_engine(name), engine(name)
    requests = [
        make_request(folder, 1, seed=1, num_inference_steps=6),
        make_request(folder, 2, seed=2, num_inference_steps=3, prompt="blue star"),
        make_request(folder, 3, seed=3, num_inference_steps=4, guidance_scale=1.0),
    ]
    alone = [draw(opened, request)[0] for request in requests]
    num_runs = opened.stats().num_steps
    together = draw(opened, *requests)
    assert opened.stats().num_steps - num_runs == 6, "they did not share their runs"
    for picture, expected in zip(together, alone, strict=True):
        assert difference(picture, expected) <= 1


def test_the_shift_of_the_noise_depends_on_the_size_of_the_picture(engine, image_engine, pipeline):
    request = make_request(image_engine("flux-dev"), height=128, width=128, num_inference_steps=3)
    (picture,) = draw(engine("flux-dev"), request)
    assert difference(picture, FlowReference(pipeline("flux-dev")).draw(request)) <= CLOSE


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("flux-dev", {"negative": NEGATIVE}, "but the model takes no negative prompt"),
        ("flux-schnell", {}, "guidance_scale is 6.0, but the model was trained to draw without"),
        ("sd3", {"width": 72}, "size is 72x40, but a side may have at most 68 pixels"),
        ("sd3", {"width": 58}, "width is 58, but it must be a multiple of 4"),
        ("flux-dev", {"scheduler": "ddim"}, "ddim"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(engine, image_engine, name, changes, message):
    request = make_request(image_engine(name), **changes)
    with pytest.raises(InvalidRequest, match=message):
        engine(name).add(request)
    assert not engine(name).has_work


def test_a_text_for_t5_ends_and_is_padded_but_does_not_start(image_engine):
    clip, t5 = token_ids(image_engine("flux-dev"), "red star")
    assert len(clip) == 77
    assert (len(t5), t5[2], set(t5[3:])) == (24, 1, {0})
    _, longest = token_ids(image_engine("flux-dev"), "red star " * 40)
    assert (len(longest), longest[-1], 0 in longest) == (24, 1, False)
