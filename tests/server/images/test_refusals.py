"""What a client may not ask an image model: a 400 that names the field, its value and the limit."""

from __future__ import annotations

import pytest
from PIL import Image

from engines.errors import RunFailed
from tests.server.apps import CHAT, tiny_model
from tests.server.images.apps import (
    EDITS,
    GENERATIONS,
    VARIATIONS,
    ask,
    gradient,
    image_engine,
    image_model,
    image_spec,
    png,
    upload,
)

FIELDS = [
    ({"prompt": None}, "prompt", "prompt is null, but it must be a string"),
    ({"prompt": ""}, "prompt", "its length must be at least 1"),
    ({"prompt": 5}, "prompt", "prompt is 5, but it must be a string"),
    ({"prompt": "a " * 11}, "prompt", "prompt has 11 tokens, but this model reads at most 10"),
    ({"prompt": "a\0b"}, "prompt", "prompt has a null character"),
    ({"negative_prompt": "a " * 11}, "negative_prompt", "negative_prompt has 11 tokens"),
    (
        {"negative_prompt": "red", "guidance_scale": 1},
        "negative_prompt",
        "negative_prompt is set, but it has no effect at a guidance_scale of 1",
    ),
    ({"n": 0}, "n", "n is 0, but it must be at least 1"),
    ({"n": 11}, "n", "n is 11, but it must be at most 10"),
    ({"size": "7x8"}, "size", "size is '7x8', but width and height must be multiples of 2"),
    ({"size": "256x256"}, "size", "size is '256x256', but a picture may have at most 256 pixels"),
    ({"size": "large"}, "size", "it must be auto or WIDTHxHEIGHT"),
    ({"response_format": "file"}, "response_format", "it must be one of b64_json, url"),
    ({"output_format": "gif"}, "output_format", "it must be one of png, jpeg, webp"),
    ({"output_compression": 101}, "output_compression", "at most 100"),
    ({"output_compression": 50}, "output_compression", "png keeps every pixel"),
    ({"background": "transparent"}, "background", "it must be opaque or auto"),
    ({"background": "blue"}, "background", "it must be one of auto, opaque, transparent"),
    ({"quality": "max"}, "quality", "it must be one of auto, low, medium, high, standard, hd"),
    ({"quality": "hd", "num_inference_steps": 5}, "quality", "both choose the number of steps"),
    ({"moderation": "none"}, "moderation", "it must be one of auto, low"),
    ({"style": "vivid"}, "style", "does not support styles"),
    ({"partial_images": 4, "stream": True}, "partial_images", "at most 3"),
    ({"partial_images": 1}, "partial_images", "it needs stream to be true"),
    ({"stream": True, "response_format": "url"}, "response_format", "carry b64_json"),
    ({"seed": -1}, "seed", "seed is -1, but it must be at least 0"),
    ({"seed": 2**63}, "seed", "seed is 9223372036854775808"),
    ({"seed": 1.5}, "seed", "it must be an integer"),
    ({"num_inference_steps": 0}, "num_inference_steps", "at least 1"),
    ({"num_inference_steps": 151}, "num_inference_steps", "at most 150"),
    ({"guidance_scale": 20.5}, "guidance_scale", "at most 20"),
    ({"guidance_scale": "much"}, "guidance_scale", "it must be a number"),
    ({"scheduler": "heun"}, "scheduler", "scheduler is 'heun', but it must be one of: ddim"),
    ({"scheduler": "flow_match_euler"}, "scheduler", "the model predicts no flow"),
    ({"cache_interval": 0}, "cache_interval", "at least 1"),
    ({"lora_path": "/tmp/x"}, "lora_path", "a LoRA variant is a model of its own"),
    ({"lora_scale": 0.5}, "lora_scale", "a LoRA variant is a model of its own"),
    ({"loras": [{"path": "x"}]}, "loras", "a LoRA variant is a model of its own"),
    ({"image": "x"}, "image", "here (use /v1/images/edits)"),
    ({"strength": 0.5}, "strength", "here (use /v1/images/edits)"),
    ({"steps": 5}, "steps", "does not support that name (use num_inference_steps)"),
    ({"width": 8}, "width", "(use size, as in 512x512)"),
    ({"svg": {"model": "x"}}, "svg", "does not support vector graphics"),
]


def refused(response, param):
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    return error["message"]


@pytest.mark.parametrize(("change", "param", "sentence"), FIELDS, ids=str)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(change, param, sentence):
    (response,) = ask(GENERATIONS, {"prompt": "a star"} | change)
    assert sentence in refused(response, param)


STREAMED = [
    field for field in FIELDS if field[1] in ("scheduler", "guidance_scale", "size", "prompt")
]


@pytest.mark.parametrize(("change", "param", "sentence"), STREAMED, ids=str)
def test_a_stream_is_refused_before_it_begins(change, param, sentence):
    (response,) = ask(GENERATIONS, {"prompt": "a star", "stream": True} | change)
    assert sentence in refused(response, param)


def test_an_engine_without_step_caching_says_so():
    model = image_model(image_engine(image_spec(shallow_denoiser=None)))
    body = {"prompt": "sea", "cache_interval": 2}
    for response in ask(GENERATIONS, body, body | {"stream": True}, models=(model,)):
        assert "the engine has no step caching" in refused(response, "cache_interval")


def test_a_model_that_takes_no_guidance_says_so():
    model = image_model(image_engine(image_spec(guidance="none", default_guidance_scale=0.0)))
    negative, scale, plain = ask(
        GENERATIONS,
        {"prompt": "sea", "negative_prompt": "red"},
        {"prompt": "sea", "guidance_scale": 3},
        {"prompt": "sea"},
        models=(model,),
    )
    assert "this model takes none" in refused(negative, "negative_prompt")
    assert "without guidance" in refused(scale, "guidance_scale")
    assert plain.status_code == 200


FORMS = [
    ({"prompt": "sea", "strength": "1.5"}, "strength", 'strength is "1.5", but it must be at most'),
    (
        {"prompt": "sea", "strength": "nan"},
        "strength",
        'strength is "nan", but it must be at least 0',
    ),
    ({"prompt": "sea", "strength": "0"}, "strength", "strength is 0"),
    ({"prompt": "sea", "seed": "one"}, "seed", 'seed is "one", but it must be an integer'),
    ({"prompt": "sea", "n": ""}, "n", 'n is "", but it must be an integer'),
    ({"prompt": "sea", "n": "12"}, "n", 'n is "12", but it must be at most 10'),
    ({"prompt": "sea", "stream": "maybe"}, "stream", "it must be true or false"),
    ({"prompt": "sea", "guidance_scale": "inf"}, "guidance_scale", "it must be at most 20"),
    ({"prompt": "sea", "input_fidelity": "high"}, "input_fidelity", "use strength"),
    ({"prompt": "sea", "lora_path": "x"}, "lora_path", "a LoRA variant"),
    ({"prompt": "sea", "image_url": "x"}, "image_url", "(send the file as image)"),
    ({}, "prompt", "prompt is missing, but it is required"),
]


@pytest.mark.parametrize(("fields", "param", "sentence"), FORMS, ids=str)
def test_the_text_fields_of_a_form_are_checked_alike(fields, param, sentence):
    assert sentence in refused(upload(EDITS, fields), param)


PICTURE = png(gradient())
FILES = [
    ({"mask": PICTURE}, "image", "image is missing, but it is required"),
    ({"image": b"junk"}, "image", "image is not a PNG, JPEG or WebP file"),
    ({"image": PICTURE[:-40]}, "image", "image is damaged or cut off"),
    ({"image": PICTURE, "mask": b"junk"}, "mask", "mask is not a PNG, JPEG or WebP file"),
    (
        {"image": PICTURE, "mask": png(gradient(10, 8))},
        "mask",
        "mask is 10x8, but it must have the image's size, which is 8x8",
    ),
    (
        {"image": PICTURE, "mask": png(Image.new("L", (8, 8)))},
        "mask",
        "mask has nothing to repaint",
    ),
    (
        [("image", PICTURE), ("image", PICTURE)],
        "image",
        "image is there more than once, but this server takes one file for it",
    ),
    ([("image[]", PICTURE), ("image[]", PICTURE)], "image", "image is there more than once"),
    ({"image": PICTURE, "markup": PICTURE}, "markup", "markup is a file, but the only files"),
]


@pytest.mark.parametrize(("files", "param", "sentence"), FILES, ids=lambda value: str(value)[:40])
def test_files_are_refused_by_name(files, param, sentence):
    assert sentence in refused(upload(EDITS, {"prompt": "sea"}, files=files), param)


def test_pixels_are_limited_before_anything_is_decoded(monkeypatch):
    files = {"image": png(gradient(20, 11))}
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    response = upload(EDITS, {"prompt": "sea"}, files=files, max_upload_pixels=200)
    assert "20 x 11 pixels, but this server takes at most 200" in refused(response, "image")


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt": "sea"}, "prompt"), ({"stream": "true"}, "stream"), ({"mask": "x"}, "mask")],
)
def test_variations_have_no_prompt_no_mask_and_no_stream(fields, param):
    assert "/v1/images/edits" in refused(upload(VARIATIONS, fields), param)
    assert upload(VARIATIONS, {"stream": "false"}).status_code == 200


def test_chat_routes_refuse_image_models_and_image_routes_chat_models():
    models = (tiny_model(id="talker"), image_model())
    (chat,) = ask("/v1/chat/completions", CHAT | {"model": "painter"}, models=models)
    assert chat.status_code == 404
    assert "'painter' is of kind image and does not answer chat" in chat.json()["error"]["message"]
    (image,) = ask(GENERATIONS, {"prompt": "sea", "model": "talker"}, models=models)
    assert image.status_code == 404
    message = image.json()["error"]["message"]
    assert "'talker' is of kind chat and does not answer image requests" in message
    assert "'painter'" in message


def test_a_server_without_image_models_says_so():
    named, unnamed = ask(
        GENERATIONS, {"prompt": "a", "model": "x"}, {"prompt": "a"}, models=(tiny_model(),)
    )
    assert "'x' does not exist; this server has 'tiny'" in named.json()["error"]["message"]
    assert unnamed.json()["error"]["message"] == "This server has no model of kind image."
    assert unnamed.json()["error"]["code"] == "model_not_found"


def test_of_several_image_models_one_has_to_be_named():
    models = (image_model(id="first"), image_model(id="second"))
    unnamed, named = ask(
        GENERATIONS, {"prompt": "sea"}, {"prompt": "sea", "model": "second"}, models=models
    )
    assert "'first', 'second'" in refused(unnamed, "model")
    assert named.status_code == 200


def test_more_pictures_than_the_queue_holds_are_refused():
    model = image_model(image_engine(max_num_images=2), max_queue_size=1)
    (response,) = ask(GENERATIONS, {"prompt": "sea", "n": 4}, models=(model,))
    assert "asks for 4 pictures, but this server holds 3 at a time" in refused(response, "n")


def test_a_failed_engine_is_a_500_and_then_a_503():
    engine = image_engine()
    engine.failure = RunFailed("the inside is on fire")
    first, second = ask(
        GENERATIONS, {"prompt": "sea"}, {"prompt": "sea"}, models=(image_model(engine),)
    )
    assert (first.status_code, second.status_code) == (500, 503)
    assert "fire" not in first.text
    assert second.json()["error"]["message"] == "The engine of 'painter' has stopped."


def test_a_request_that_takes_too_long_is_a_504(monkeypatch):
    monkeypatch.setattr("server.worker.TICK_S", 0.01)
    engine = image_engine()
    engine.hold()
    model = image_model(engine, request_timeout_s=0.02)
    (response,) = ask(GENERATIONS, {"prompt": "sea"}, models=(model,))
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
