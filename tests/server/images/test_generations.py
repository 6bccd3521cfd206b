"""`/v1/images/generations`: what a picture is made of, and that it can be made again."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from engines import __version__
from tests.engines.image.fake_runner import run_to_end
from tests.server.images.apps import (
    GENERATIONS,
    ask,
    draw,
    image_engine,
    image_model,
    image_spec,
    opened,
    pixels,
)


def requests_of(*bodies, **changes):
    """What the engine was asked for by each body."""
    engine = image_engine(image_spec(**changes))
    responses = ask(GENERATIONS, *bodies, models=(image_model(engine),))
    assert [response.status_code for response in responses] == [200] * len(bodies)
    return engine.added


def test_the_answer_has_openais_fields_and_a_picture_of_the_engines_size():
    before = int(time.time())
    answer = draw({})
    (entry,) = answer.pop("data")
    assert before <= answer.pop("created") <= time.time()
    assert answer == {
        "background": "opaque",
        "output_format": "png",
        "quality": "medium",
        "size": "8x8",
        "usage": {
            "input_tokens": 3,
            "output_tokens": 16,
            "total_tokens": 19,
            "input_tokens_details": {"text_tokens": 3, "image_tokens": 0},
            "output_tokens_details": {"text_tokens": 0, "image_tokens": 16},
        },
    }
    assert entry.keys() == {"b64_json", "revised_prompt"}
    assert entry["revised_prompt"] is None
    image = opened(entry["b64_json"])
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (8, 8))


def test_the_picture_is_what_the_engine_draws_for_these_tokens_and_this_seed():
    answer = draw({"negative_prompt": "blue sea", "guidance_scale": 3, "num_inference_steps": 5})
    engine = image_engine()
    model = image_model(image_engine())
    (request,) = requests_of(
        {
            "prompt": "a red circle",
            "seed": 3,
            "negative_prompt": "blue sea",
            "guidance_scale": 3,
            "num_inference_steps": 5,
        }
    )
    assert request.prompt_token_ids == model.prompts.encode("a red circle", "prompt").token_ids
    assert request.negative_token_ids == model.prompts.encode("blue sea", "x").token_ids
    engine.add(request)
    (expected,) = [output.picture for output in run_to_end(engine) if output.is_finished]
    assert np.array_equal(pixels(answer["data"][0]["b64_json"]), expected)


def test_what_is_left_out_comes_from_the_engine():
    (request,) = requests_of(
        {"prompt": "star"},
        default_height=6,
        default_width=12,
        default_num_inference_steps=7,
        default_guidance_scale=2.5,
    )
    assert (request.height, request.width) == (6, 12)
    assert (request.num_inference_steps, request.guidance_scale) == (7, 2.5)
    assert request.negative_token_ids is request.scheduler is request.image is request.mask is None
    assert (request.cache_interval, request.preview_steps) == (1, frozenset())


def test_what_is_sent_reaches_the_engine():
    (request,) = requests_of(
        {
            "prompt": "star",
            "size": "12x6",
            "seed": 11,
            "num_inference_steps": 9,
            "guidance_scale": 0,
            "scheduler": "euler_a",
            "cache_interval": 3,
        }
    )
    assert request.cache_interval == 3
    assert (request.width, request.height, request.seed) == (12, 6, 11)
    assert (request.num_inference_steps, request.guidance_scale) == (9, 0)
    assert request.scheduler == "euler_a"


def test_harmless_fields_and_unknown_ones_change_nothing():
    harmless = {
        "user": "someone",
        "safety_identifier": "x",
        "moderation": "low",
        "background": "auto",
        "output_compression": 100,
        "quality": "auto",
        "size": "auto",
        "n": 1,
        "response_format": "b64_json",
        "stream": False,
        "partial_images": 0,
        "style": None,
        "lora_path": "",
        "negative_prompt": "",
        "something_new": 3,
    }
    assert draw(harmless)["data"] == draw({})["data"]


@pytest.mark.parametrize(
    ("quality", "num_steps", "said"),
    [
        ("auto", 20, "medium"),
        ("standard", 20, "medium"),
        ("low", 10, "low"),
        ("medium", 20, "medium"),
        ("high", 30, "high"),
        ("hd", 30, "high"),
    ],
)
def test_quality_is_a_number_of_steps(quality, num_steps, said):
    engine = image_engine(image_spec(default_num_inference_steps=20))
    answer = draw({"quality": quality}, image_model(engine))
    assert engine.added[0].num_inference_steps == num_steps
    assert answer["quality"] == said


def test_quality_says_how_the_steps_compare_with_the_engines_own():
    assert draw({"num_inference_steps": 3})["quality"] == "low"
    assert draw({"num_inference_steps": 5, "quality": "standard"})["quality"] == "high"


@pytest.mark.parametrize(("own", "quality", "num_steps"), [(1, "low", 1), (120, "high", 150)])
def test_quality_stays_within_the_limits_of_steps(own, quality, num_steps):
    (request,) = requests_of({"prompt": "sea", "quality": quality}, default_num_inference_steps=own)
    assert request.num_inference_steps == num_steps


def test_several_pictures_have_seeds_that_follow_each_other():
    several = [entry["b64_json"] for entry in draw({"n": 3})["data"]]
    alone = [draw({"seed": 3 + i})["data"][0]["b64_json"] for i in range(3)]
    assert several == alone
    assert len(set(several)) == 3


def test_seeds_begin_again_behind_the_largest():
    requests = requests_of({"prompt": "sea", "n": 2, "seed": 2**63 - 1})
    assert [request.seed for request in requests] == [2**63 - 1, 0]


def test_usage_counts_the_prompts_once_and_every_picture():
    usage = draw({"n": 2, "size": "12x6", "negative_prompt": "blue"})["usage"]
    assert usage["input_tokens_details"] == {"text_tokens": 4, "image_tokens": 0}
    assert usage["output_tokens"] == 2 * 6 * 3
    assert usage["total_tokens"] == 4 + 36


def test_a_picture_says_how_it_was_made():
    image = opened(
        draw({"negative_prompt": "meerblau 海", "n": 2, "scheduler": "euler"})["data"][1][
            "b64_json"
        ]
    )
    assert image.text == {
        "prompt": "a red circle",
        "negative_prompt": "meerblau 海",
        "seed": "4",
        "size": "8x8",
        "num_inference_steps": "4",
        "guidance_scale": "5.0",
        "scheduler": "euler",
        "engine": "painter",
        "software": f"Enginery {__version__}",
    }


def again(texts):
    """The request that makes a picture again, from what is written in it."""
    kept = {name: text for name, text in texts.items() if name not in ("engine", "software")}
    numbers = {"seed", "num_inference_steps", "guidance_scale", "cache_interval"}
    return (
        kept
        | {name: json.loads(kept[name]) for name in numbers & kept.keys()}
        | {"model": texts["engine"]}
    )


@pytest.mark.parametrize(
    "body", [{}, {"negative_prompt": "blue sea", "guidance_scale": 3.3, "cache_interval": 2}]
)
def test_a_picture_is_made_again_from_its_own_text_byte_for_byte(body):
    (first,) = ask(GENERATIONS, {"prompt": "a red circle", "n": 2} | body)
    for entry in first.json()["data"]:
        texts = opened(entry["b64_json"]).text
        (second,) = ask(GENERATIONS, again(texts))
        assert second.json()["data"] == [entry]


def test_without_a_seed_every_picture_is_another():
    first, second = (draw({"seed": None})["data"][0]["b64_json"] for _ in range(2))
    assert opened(first).text["seed"] != opened(second).text["seed"]
    assert not np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize(("name", "format"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_are_compressed_as_asked_and_say_the_same_in_exif(name, format):
    expected = opened(draw({"size": "16x16"})["data"][0]["b64_json"])
    sizes = []
    for compression in (None, 100, 20):
        answer = draw({"size": "16x16", "output_format": name, "output_compression": compression})
        assert answer["output_format"] == name
        image = opened(answer["data"][0]["b64_json"])
        assert (image.format, image.size) == (format, (16, 16))
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert json.loads(comment.removeprefix(b"ASCII\0\0\0")) == expected.text
        sizes.append(len(answer["data"][0]["b64_json"]))
        if compression != 20:
            error = np.abs(np.asarray(image, int) - np.asarray(expected, int))
            assert error.mean() < 40, "noise is the worst case of both formats"
    assert sizes[0] == sizes[1] > sizes[2]


def test_the_model_may_be_left_out_where_there_is_one():
    assert draw({"model": None})["data"] == draw({"model": "painter"})["data"]
