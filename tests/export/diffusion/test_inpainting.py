"""Pictures that are repainted behind a mask: beside diffusers, and what is kept of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as sd_inpaint
from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_inpaint as xl

from tests.export.diffusion.pictures import (
    CLOSE,
    HEIGHT,
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

IMAGE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
CIRCLE = np.hypot(*(np.indices((HEIGHT // 2, WIDTH // 2)) - np.array([[[9]], [[15]]]))) < 8
MASK = np.kron(CIRCLE, np.full((2, 2), 255)).astype(np.uint8)  # a latent stands for 2 x 2 pixels
LIBRARY = {
    "sd15": (StableDiffusionInpaintPipeline, sd_inpaint),
    "sdxl": (StableDiffusionXLInpaintPipeline, xl),
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


def drawn_by_diffusers(checkpoint, name, request, monkeypatch):
    """With the noise that the engine draws from the request's seed; its pixels not pasted."""
    pipeline_class, module = LIBRARY[name]
    own = Reference(checkpoint, request.scheduler).pipeline.components
    extra = {"requires_safety_checker": False} if name == "sd15" else {}
    reference = pipeline_class(**own, **extra)
    reference.set_progress_bar_config(disable=True)
    generator = np.random.default_rng(request.seed)
    sampled, added = (
        torch.from_numpy(generator.standard_normal(noise_shape(request), np.float32))[None]
        for _ in range(2)
    )
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: added)
    pixels = torch.from_numpy(request.image).permute(2, 0, 1)[None] / 127.5 - 1
    with quiet(), torch.inference_mode():
        latents = reference.vae.encode(pixels).latent_dist
        original = (latents.mean + latents.std * sampled) * reference.vae.config.scaling_factor
        images = reference(
            prompt="red circle",
            image=original,
            mask_image=torch.from_numpy(request.mask / np.float32(255))[None, None],
            masked_image_latents=original,
            height=HEIGHT,
            width=WIDTH,
            strength=request.strength,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            output_type="np",
        ).images
    return to_levels(images)


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++_2m"])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_what_is_repainted_is_that_of_diffusers(
    engine, image_engine, pipeline, monkeypatch, name, scheduler, strength
):
    request = make_request(
        image_engine(name), image=IMAGE, mask=MASK, strength=strength, scheduler=scheduler
    )
    (picture,) = draw(engine(name), request)
    expected = drawn_by_diffusers(pipeline(name), name, request, monkeypatch)
    pasted = np.where(MASK[:, :, None] == 255, expected, IMAGE)
    assert difference(picture, pasted) <= CLOSE
    repainted = picture[MASK == 255].astype(int) - IMAGE[MASK == 255]
    assert np.abs(repainted).mean() > 10


def test_what_is_kept_is_kept_exactly_in_previews_too(engine, image_engine):
    opened = engine("sd15")
    request = make_request(
        image_engine("sd15"), image=IMAGE, mask=MASK, strength=1.0, preview_steps=frozenset({2, 4})
    )
    opened.add(request)
    outputs = []
    while opened.has_work:
        outputs += opened.step()
    shown = [output.preview for output in outputs if output.preview is not None]
    shown += [output.picture for output in outputs if output.is_finished]
    assert len(shown) == 3
    for picture in shown:
        assert np.array_equal(picture[MASK == 0], IMAGE[MASK == 0])
        assert (picture[MASK == 255] != IMAGE[MASK == 255]).mean() > 0.9


def test_what_is_kept_decides_what_is_painted_beside_it(engine, image_engine):
    folder, opened = image_engine("sd15"), engine("sd15")
    other = np.where(MASK[:, :, None] == 255, IMAGE, 255 - IMAGE)
    first, second = (
        draw(opened, make_request(folder, image=image, mask=MASK, strength=1.0))[0]
        for image in (IMAGE, other)
    )
    assert difference(first[MASK == 255], second[MASK == 255]) > CLOSE


def test_a_line_thinner_than_a_latent_is_repainted(engine, image_engine):
    line = np.zeros_like(MASK)
    line[11] = 255
    request = make_request(image_engine("sd15"), image=IMAGE, mask=line, strength=1.0)
    decoded_original = make_request(image_engine("sd15"), 1, image=IMAGE, mask=line, strength=0.2)
    picture, barely = draw(engine("sd15"), request, decoded_original)
    assert np.array_equal(picture[line == 0], IMAGE[line == 0])
    assert difference(picture[11], barely[11]) > CLOSE


def test_a_mask_of_greys_is_taken_for_the_nearer_of_white_and_black(engine, image_engine):
    greys = np.where(MASK == 255, 128, 127).astype(np.uint8)
    folder, opened = image_engine("sd15"), engine("sd15")
    sharp, soft = (
        draw(opened, make_request(folder, image=IMAGE, mask=mask))[0] for mask in (MASK, greys)
    )
    assert np.array_equal(sharp, soft)
