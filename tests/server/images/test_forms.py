"""Multipart forms as bytes: damaged ones are a 400 in our words, large ones a 413."""

from __future__ import annotations

import pytest

from tests.server.apps import http_client
from tests.server.images.apps import EDITS, GENERATIONS, ask, gradient, png, with_images

BOUNDARY = "boundary-of-parts"
PICTURE = png(gradient())


def part(name, content, filename=None, **headers):
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    lines = [f"Content-Disposition: {disposition}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    body = content if isinstance(content, bytes) else content.encode()
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def form(*parts, end=b"--\r\n"):
    delimiter = b"--" + BOUNDARY.encode()
    return b"".join(delimiter + b"\r\n" + each + b"\r\n" for each in parts) + delimiter + end


SOUND = (part("image", PICTURE, "a.png"), part("prompt", "a red sea"))


def send(body, content_type=f"multipart/form-data; boundary={BOUNDARY}", chunked=False, **settings):
    async def chunks():
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async def scenario(app):
        async with http_client(app) as client:
            content = chunks() if chunked else body
            headers = {} if content_type is None else {"Content-Type": content_type}
            return await client.post(EDITS, content=content, headers=headers)

    return with_images(scenario, **settings)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_sound_form_is_read_whether_it_says_its_length_or_not(chunked):
    response = send(form(*SOUND), chunked=chunked)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "unexpected form structure"),
        (b"junk", "unexpected form structure"),
        (form(*SOUND, end=b""), "unexpected form structure"),
        (form(*SOUND)[:-30], "unexpected form structure"),
        (form(*SOUND).replace(BOUNDARY.encode(), b"another"), "unexpected form structure"),
        (form(*SOUND, b"Content-Disposition: form-data\r\n\r\nx"), "a part has no name"),
        (form(*SOUND, b"no headers"), "incomplete body part headers"),
        (form(*SOUND, part("x", "y", Content_Transfer_Encoding="base64")), "is unsupported"),
        (form(*[part(f"field{i}", "x") for i in range(80)]), "it has more than 64 parts"),
    ],
    ids=lambda value: value[-20:] if isinstance(value, bytes) else value,
)
def test_a_damaged_form_is_a_400_in_our_words(body, problem):
    response = send(body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["message"].startswith("The body is not a valid multipart form: ")
    assert problem in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_multipart")


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * 80}",
    ],
)
def test_a_boundary_that_cannot_be_used_is_a_400(content_type):
    response = send(form(*SOUND), content_type)
    assert response.status_code == 400
    assert "names no usable boundary" in response.json()["error"]["message"]


@pytest.mark.parametrize("content_type", ["application/json", "image/png", None])
def test_another_type_is_a_415(content_type):
    response = send(form(*SOUND), content_type)
    assert response.status_code == 415
    assert "send multipart/form-data" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("extra", "param", "sentence"),
    [
        (part("prompt", "again"), "prompt", "prompt is there more than once in the form"),
        (part("image", PICTURE, "b.png"), "image", "this server takes one file for it"),
        (part("n", b"\xff\xfe"), "n", "n is not UTF-8 text"),
        (part("negative_prompt", "x" * 300_000), "negative_prompt", "longer than 262144 bytes"),
        (part("seed", "x", "seed.txt"), "seed", "seed is a file, but the only files"),
    ],
)
def test_a_part_that_is_wrong_is_named(extra, param, sentence):
    response = send(form(*SOUND, extra))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert sentence in error["message"]


def test_a_name_may_be_in_any_script_and_is_shortened_where_it_is_shown():
    assert send(form(*SOUND, part("größe", "3"))).status_code == 200
    response = send(form(*SOUND, part("x" * 500, "3", "file")))
    assert len(response.json()["error"]["message"]) < 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_form_above_the_limit_is_a_413(chunked):
    body = form(*SOUND, part("padding", "x" * 5000))
    assert send(body, chunked=chunked, max_upload_size=len(body)).status_code == 200
    response = send(body, chunked=chunked, max_upload_size=len(body) - 1)
    assert response.status_code == 413
    error = response.json()["error"]
    assert (
        error["message"] == f"The form is larger than this server's limit of {len(body) - 1} bytes."
    )
    assert error["code"] == "request_too_large"


def test_generations_take_json_alone():
    async def scenario(app):
        async with http_client(app) as client:
            return await client.post(GENERATIONS, data={"prompt": "sea"}, files={"x": b"y"})

    response = with_images(scenario)
    assert response.status_code == 415
    assert "send application/json" in response.json()["error"]["message"]
    (listed,) = ask(GENERATIONS, ["sea"])
    assert listed.json()["error"]["message"] == "the body is not a JSON object"
