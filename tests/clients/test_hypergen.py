"""Requests as HyperGen's documentation has them, but for sizes that a tiny model draws."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.server.images.apps import opened
from tests.server_process import ServerProcess

KEY = "sk-hypergen-123456"
PROMPT = "A professional portrait of a person in natural lighting"
EXTENSIONS = {
    "negative_prompt": "blurry, low quality",
    "num_inference_steps": 4,
    "guidance_scale": 7.5,
    "seed": 42,
}


@pytest.fixture(scope="module")
def url(painter_engine):
    engine = ["--engine-dir", str(painter_engine), "--num-threads", "1"]
    with ServerProcess([*engine, "--accept-any-model", "--api-key", KEY]) as process:
        yield process.base_url


@pytest.fixture(scope="module")
def http(url):
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ) as client:
        yield client


def test_the_openai_client_draws_with_every_extension(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        pictures = [
            client.images.generate(
                model="sdxl-turbo",
                prompt=PROMPT,
                n=1,
                size="32x32",
                quality="standard",
                response_format="b64_json",
                extra_body=EXTENSIONS,
            )
            for _ in range(2)
        ]
    first, second = (picture.data[0].b64_json for picture in pictures)
    assert first == second, "a seed repeats a picture"
    assert opened(first).text["num_inference_steps"] == "4"


def test_the_model_may_be_left_out_and_urls_work(http):
    body = {"prompt": PROMPT, "size": "32x32", "n": 2, "response_format": "url"} | EXTENSIONS
    answer = http.post("/v1/images/generations", json=body).json()
    assert len(answer["data"]) == 2
    for picture in answer["data"]:
        assert httpx.get(picture["url"]).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("field", "values", "refused"),
    [
        ("n", (1, 10), (0, 11)),
        ("num_inference_steps", (1, 150), (0, 151)),
        ("guidance_scale", (1.0, 20.0), (-0.5, 20.5)),
    ],
)
def test_the_documented_ranges_hold(http, field, values, refused):
    body = {"prompt": PROMPT, "size": "16x16", "num_inference_steps": 1}
    for value in values:
        answer = http.post("/v1/images/generations", json=body | {field: value})
        assert answer.status_code == 200, answer.text
    for value in refused:
        answer = http.post("/v1/images/generations", json=body | {field: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


def test_what_a_request_cannot_bring_is_refused_by_name(http):
    body = {"prompt": PROMPT, "lora_path": "./my_lora_weights"}
    error = http.post("/v1/images/generations", json=body).json()["error"]
    assert (error["param"], error["code"]) == ("lora_path", "unsupported_parameter")


def test_the_key_is_needed_and_health_is_not_behind_it(url, http):
    refused = httpx.post(f"{url}/v1/images/generations", json={"prompt": PROMPT})
    assert refused.status_code == 401
    health = httpx.get(f"{url}/health").json()
    assert health.keys() >= {"status", "model", "queue_size", "device"}
    (model,) = http.get("/v1/models").json()["data"]
    assert model["object"] == "model"
