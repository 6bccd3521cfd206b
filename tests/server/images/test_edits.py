"""`/v1/images/edits` and `/v1/images/variations`: pictures that begin with a picture."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from tests.server.images.apps import (
    EDITS,
    VARIATIONS,
    file_of,
    gradient,
    image_engine,
    image_model,
    image_spec,
    opened,
    pixels,
    png,
    upload,
)

EDIT = {"prompt": "a blue star", "seed": "5"}


def ok(response):
    assert response.status_code == 200, response.text
    return response.json()


def right_half(width=8, height=8):
    """A mask whose right half is transparent."""
    alpha = np.zeros((height, width), np.uint8)
    alpha[:, : width // 2] = 255
    black = Image.new("L", (width, height))
    return png(Image.merge("LA", [black, Image.fromarray(alpha)]))


def test_an_image_and_a_prompt_become_a_picture_between_the_two():
    engine = image_engine()
    answer = ok(upload(EDITS, EDIT, image_model(engine)))
    (request,) = engine.added
    assert np.array_equal(request.image, np.asarray(gradient()))
    assert (request.mask, request.strength, request.seed) == (None, 0.8, 5)
    assert (answer["size"], answer["background"]) == ("8x8", "opaque")
    assert answer["usage"] == {
        "input_tokens": 3 + 16,
        "output_tokens": 16,
        "total_tokens": 35,
        "input_tokens_details": {"text_tokens": 3, "image_tokens": 16},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 16},
    }
    (entry,) = answer["data"]
    assert not np.array_equal(pixels(entry["b64_json"]), np.asarray(gradient()))


@pytest.mark.parametrize("name", ["image", "image[]"])
def test_the_file_has_either_of_openais_names(name):
    files = {name: ("a.png", png(gradient()), "image/png")}
    assert ok(upload(EDITS, EDIT, files=files))["data"] == ok(upload(EDITS, EDIT))["data"]


def test_every_field_of_a_generation_counts_here_too():
    engine = image_engine(image_spec(default_num_inference_steps=10))
    fields = {
        "n": "2",
        "size": "12x6",
        "num_inference_steps": "6",
        "guidance_scale": "2.5",
        "negative_prompt": "red",
        "scheduler": "euler",
        "strength": "0.5",
        "output_format": "jpeg",
        "output_compression": "80",
        "model": "painter",
        "user": "someone",
        "stream": "false",
    }
    answer = ok(upload(EDITS, EDIT | fields, image_model(engine)))
    assert [request.seed for request in engine.added] == [5, 6]
    request = engine.added[0]
    assert request.image.shape == (6, 12, 3)
    assert (request.num_inference_steps, request.guidance_scale) == (6, 2.5)
    assert (request.scheduler, request.strength) == ("euler", 0.5)
    assert request.negative_token_ids is not None
    assert [opened(entry["b64_json"]).format for entry in answer["data"]] == ["JPEG", "JPEG"]
    assert answer["quality"] == "low"


@pytest.mark.parametrize(("strength", "repainted"), [(None, 1.0), ("0.6", 0.6)])
def test_only_what_the_mask_names_is_repainted(strength, repainted):
    engine = image_engine()
    files = {"image": png(gradient()), "mask": right_half()}
    fields = EDIT if strength is None else EDIT | {"strength": strength}
    answer = ok(upload(EDITS, fields, image_model(engine), files=files))
    (request,) = engine.added
    assert request.strength == repainted
    assert request.mask.tolist() == [[0] * 4 + [255] * 4] * 8
    found, original = pixels(answer["data"][0]["b64_json"]), np.asarray(gradient())
    assert np.array_equal(found[:, :4], original[:, :4]), "what is kept is kept exactly"
    assert (found[:, 4:] != original[:, 4:]).any(axis=2).mean() > 0.8


def test_the_picture_has_the_allowed_size_nearest_to_the_image():
    answer = ok(upload(EDITS, EDIT, files={"image": png(gradient(64, 32))}))
    assert answer["size"] == "22x10"
    assert opened(answer["data"][0]["b64_json"]).size == (22, 10)
    files = {"image": png(gradient(12, 5)), "mask": right_half(12, 5)}
    assert ok(upload(EDITS, EDIT, files=files))["size"] == "12x4"


def test_a_picture_names_the_files_that_it_was_made_from():
    files = {"image": file_of(gradient(), "WEBP"), "mask": right_half()}
    texts = opened(ok(upload(EDITS, EDIT, files=files))["data"][0]["b64_json"]).text
    assert texts["image_sha256"] == hashlib.sha256(files["image"]).hexdigest()
    assert texts["mask_sha256"] == hashlib.sha256(files["mask"]).hexdigest()
    assert (texts["strength"], texts["seed"]) == ("1.0", "5")


def test_an_edit_is_made_again_from_its_own_text_byte_for_byte():
    files = {"image": png(gradient()), "mask": right_half()}
    fields = EDIT | {"strength": "0.7", "n": "2", "guidance_scale": "3.25"}
    for entry in ok(upload(EDITS, fields, files=files))["data"]:
        texts = dict(opened(entry["b64_json"]).text)
        again = {"model": texts.pop("engine")} | texts  # what else is there is ignored
        assert ok(upload(EDITS, again, files=files))["data"] == [entry]


def test_variations_follow_the_image_alone():
    engine = image_engine()
    answer = ok(upload(VARIATIONS, {"n": "2", "seed": "1"}, image_model(engine)))
    assert len(answer["data"]) == 2
    assert answer["data"][0] != answer["data"][1]
    assert answer["usage"]["input_tokens_details"] == {"text_tokens": 0, "image_tokens": 16}
    request = engine.added[0]
    assert np.array_equal(request.image, np.asarray(gradient()))
    assert (request.strength, request.guidance_scale, request.seed) == (0.6, 1.0, 1)
    assert "prompt" not in opened(answer["data"][0]["b64_json"]).text


def test_a_variation_may_be_guided_away_from_something():
    engine = image_engine()
    fields = {"negative_prompt": "red", "strength": "0.9"}
    ok(upload(VARIATIONS, fields, image_model(engine)))
    assert engine.added[0].guidance_scale == 5.0
    assert engine.added[0].strength == 0.9
