"""The current openai-python client draws, edits and streams with a running server."""

from __future__ import annotations

import concurrent.futures
import io
import json
import re
import time
import warnings

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import PAINTER
from tests.server.images.apps import file_of, gradient, opened, pixels, png
from tests.server_process import ServerProcess

openai = pytest.importorskip("openai")

SIZE = 32
DRAW = {"model": PAINTER, "prompt": "A red star", "size": f"{SIZE}x{SIZE}"}
STEPS = {"num_inference_steps": 6}
SEEDED = {"seed": 7, **STEPS}


@pytest.fixture(scope="module")
def client(painter_server):
    base_url = f"{painter_server.base_url}/v1"
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def source(size=SIZE):
    """A picture as the client wants its files: with a name."""
    return ("image.png", png(gradient(size, size)), "image/png")


def mask_of(size=SIZE):
    """Transparent in the middle."""
    alpha = Image.new("L", (size, size), 255)
    alpha.paste(0, (size // 4, size // 4, 3 * size // 4, 3 * size // 4))
    return ("mask.png", png(Image.merge("LA", [Image.new("L", (size, size)), alpha])), "image/png")


def inside(size=SIZE):
    where = np.zeros((size, size), bool)
    where[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = True
    return where


def test_both_kinds_are_listed_and_each_tells_its_limits(client):
    assert sorted(model.id for model in client.models.list()) == ["tiny", PAINTER]
    limits = client.models.retrieve(PAINTER).model_dump()
    assert (limits["kind"], limits["family"]) == ("image", "stable-diffusion")
    assert limits["image"]["max_prompt_tokens"] == 75
    assert limits["image"]["default_size"] == f"{SIZE}x{SIZE}"
    assert "max_model_len" not in limits


def test_a_prompt_becomes_pictures_that_differ(client):
    answer = client.images.generate(**DRAW, n=2, extra_body=SEEDED)
    assert abs(answer.created - time.time()) < 600
    assert (answer.size, answer.quality, answer.background) == (f"{SIZE}x{SIZE}", "low", "opaque")
    assert answer.output_format == "png"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    first, second = (pixels(image.b64_json) for image in answer.data)
    assert first.shape == second.shape == (SIZE, SIZE, 3)
    assert first.std() > 5
    assert not np.array_equal(first, second)


def test_a_chat_is_answered_beside_pictures(client):
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        picture = executor.submit(client.images.generate, **DRAW, extra_body=SEEDED)
        messages = [{"role": "user", "content": "Hi"}]
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5)
        assert answer.usage.completion_tokens > 0
        assert picture.result().data[0].b64_json


def test_a_seed_repeats_a_picture_whatever_else_is_drawn(client):
    def picture(seed, steps=6):
        body = {"seed": seed, "num_inference_steps": steps}
        return pixels(client.images.generate(**DRAW, extra_body=body).data[0].b64_json)

    alone = picture(7).astype(int)
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        crowd = list(executor.map(picture, (7, 1, 7, 2), (6, 9, 6, 3)))
    for found in (crowd[0], crowd[2]):
        # The kernels split their work by the number of rows: a level may be rounded otherwise.
        assert np.abs(found.astype(int) - alone).max() <= 1
    assert np.abs(crowd[1].astype(int) - alone).max() > 20


def test_a_picture_is_made_again_from_its_own_text_byte_for_byte(client):
    extra = {"negative_prompt": "blue", "guidance_scale": 4.5, "scheduler": "euler_a", **STEPS}
    first = client.images.generate(**DRAW, extra_body=extra).data[0].b64_json
    texts = opened(first).text
    assert texts["engine"] == PAINTER
    numbers = ("seed", "num_inference_steps", "guidance_scale")
    again = {name: json.loads(texts[name]) for name in numbers}
    again |= {name: texts[name] for name in ("negative_prompt", "scheduler")}
    second = client.images.generate(
        model=texts["engine"], prompt=texts["prompt"], size=texts["size"], extra_body=again
    )
    assert second.data[0].b64_json == first


def test_partial_pictures_come_while_it_is_drawn(client):
    whole = client.images.generate(**DRAW, extra_body=SEEDED)
    stream = client.images.generate(**DRAW, stream=True, partial_images=3, extra_body=SEEDED)
    *partial, completed = list(stream)
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 3
    assert [event.partial_image_index for event in partial] == [0, 1, 2]
    assert completed.type == "image_generation.completed"
    assert completed.b64_json == whole.data[0].b64_json
    assert completed.usage.model_dump() == whole.usage.model_dump()
    final = pixels(completed.b64_json).astype(int)
    distances = [np.abs(pixels(event.b64_json) - final).mean() for event in partial]
    assert distances[0] > distances[2] > 0


@pytest.mark.parametrize(("name", "format"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_pictures_come_in_other_formats(client, name, format):
    answer = client.images.generate(
        **DRAW, output_format=name, output_compression=100, extra_body=SEEDED
    )
    assert opened(answer.data[0].b64_json).format == format
    plain = client.images.generate(**DRAW, extra_body=SEEDED)
    error = np.abs(pixels(answer.data[0].b64_json) - pixels(plain.data[0].b64_json).astype(int))
    assert error.mean() < 45, "noise is the worst case of both formats"


def test_a_url_leads_to_the_picture(client, painter_server):
    plain = client.images.generate(**DRAW, extra_body=SEEDED)
    answer = client.images.generate(**DRAW, response_format="url", extra_body=SEEDED)
    url = answer.data[0].url
    assert url.startswith(f"{painter_server.base_url}/v1/images/files/")
    assert answer.data[0].b64_json is None
    found, head = httpx.get(url), httpx.head(url)
    assert found.headers["content-type"] == head.headers["content-type"] == "image/png"
    assert head.headers["content-length"] == str(len(found.content))
    assert head.content == b""
    assert np.array_equal(pixels(found.content), pixels(plain.data[0].b64_json))
    assert httpx.get(url.replace("files/", "files/0")).status_code == 404


def test_an_edit_follows_the_image_the_more_the_less_its_strength(client):
    other = ("other.png", png(gradient(SIZE, SIZE).rotate(180)), "image/png")

    def distance(strength):
        """Between the edits of two images, alike in all else."""
        body = {"seed": 1, "num_inference_steps": 10, "strength": strength}
        answers = [
            client.images.edit(model=PAINTER, image=image, prompt="A star", extra_body=body)
            for image in (source(), other)
        ]
        first, second = (pixels(answer.data[0].b64_json).astype(int) for answer in answers)
        return np.abs(first - second).mean()

    assert distance(0.1) > 1.5 * distance(1.0)


def test_what_the_mask_does_not_name_is_kept_exactly(client):
    answer = client.images.edit(
        model=PAINTER, image=[source()], mask=mask_of(), prompt="A star", n=2, extra_body=SEEDED
    )
    assert answer.size == f"{SIZE}x{SIZE}"
    original = np.asarray(gradient(SIZE, SIZE))
    for image in answer.data:
        found = pixels(image.b64_json)
        assert np.array_equal(found[~inside()], original[~inside()])
        assert (found[inside()] != original[inside()]).any(axis=1).mean() > 0.9


def test_an_edit_is_streamed(client):
    stream = client.images.edit(
        model=PAINTER,
        image=source(),
        mask=mask_of(),
        prompt="A star",
        stream=True,
        partial_images=2,
        extra_body=SEEDED,
    )
    *partial, completed = list(stream)
    assert [event.type for event in partial] == ["image_edit.partial_image"] * 2
    assert completed.type == "image_edit.completed"
    original = np.asarray(gradient(SIZE, SIZE))
    for event in (*partial, completed):
        assert np.array_equal(pixels(event.b64_json)[~inside()], original[~inside()])


def test_variations_of_a_photo_have_the_size_asked_for(client):
    photo = file_of(gradient(120, 90), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenAI's own models vary no more
        answer = client.images.create_variation(
            model=PAINTER, image=("photo.jpg", photo), n=2, size=f"{SIZE}x{SIZE}", extra_body=STEPS
        )
    first, second = (pixels(image.b64_json) for image in answer.data)
    assert first.shape == (SIZE, SIZE, 3)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"model": "other"}, "NotFoundError", "model"),
        ({"model": "tiny"}, "NotFoundError", "model"),
        ({"size": "33x32"}, "BadRequestError", "size"),
        ({"prompt": "a " * 76}, "BadRequestError", "prompt"),
        ({"background": "transparent"}, "BadRequestError", "background"),
        ({"style": "vivid"}, "BadRequestError", "style"),
        ({"extra_body": {"scheduler": "none"}}, "BadRequestError", "scheduler"),
        ({"extra_body": {"lora_path": "x"}}, "BadRequestError", "lora_path"),
    ],
)
def test_errors_are_those_that_the_client_knows(client, change, error, param):
    with pytest.raises(getattr(openai, error)) as caught:
        client.images.generate(**DRAW | change)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_files_that_are_no_pictures_are_errors_that_the_client_knows(client):
    junk = io.BytesIO(b"junk")
    junk.name = "image.png"
    for image in (junk, ("cut.png", png(gradient(64, 64))[:-50], "image/png")):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(model=PAINTER, image=image, prompt="A star")
        assert caught.value.param == "image"


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_hangs_up_stops_its_pictures(painter_server, streamed):
    body = DRAW | {"n": 4, "num_inference_steps": 150, "stream": streamed}
    with painter_server.client() as watcher:
        before = metric(watcher, "denoising_steps_total")
        with httpx.Client(base_url=painter_server.base_url) as impatient:
            if streamed:
                with impatient.stream("POST", "/v1/images/generations", json=body) as response:
                    next(response.iter_bytes())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    impatient.post(
                        "/v1/images/generations", json=body, timeout=httpx.Timeout(10, read=0.2)
                    )
        deadline = time.monotonic() + 30
        while metric(watcher, "num_requests_running"):
            assert time.monotonic() < deadline, "the request still runs"
        assert metric(watcher, "denoising_steps_total") - before < 150


def metric(client, name):
    page = client.get("/metrics").text
    found = re.search(rf'^enginery_{name}{{model_name="{PAINTER}"}} (\S+)$', page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


def test_a_server_with_an_image_engine_alone_starts_and_keeps_pictures_on_disk(
    painter_engine, tmp_path
):
    arguments = ["--engine-dir", str(painter_engine), "--num-threads", "1"]
    arguments += ["--image-dir", str(tmp_path / "pictures"), "--served-model-name", "dall-e-2"]
    body = {"prompt": "A star", "size": "32x32", "response_format": "url", **SEEDED}
    with ServerProcess(arguments) as process, process.client() as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["dall-e-2"]
        answer = client.post("/v1/images/generations", json=body)
        assert answer.status_code == 200, answer.text
        url = answer.json()["data"][0]["url"]
        content = client.get(url).content
        assert process.stop() == 0
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.read_bytes() == content
    with ServerProcess(arguments) as process, process.client() as client:
        assert client.get(f"/v1/images/files/{path.name}").content == content
