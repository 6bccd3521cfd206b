"""Pictures to files: the same bytes for the same picture, with their texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from server.images.encoding import OutputOptions, encode_picture
from tests.server.images.apps import gradient, opened

PICTURE = np.asarray(gradient(16, 16))
TEXTS = {"prompt": "ein Kreis, größer als 海", "seed": "7"}


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_same_picture_and_texts_give_the_same_bytes(format):
    options = OutputOptions(format, 90)
    first = encode_picture(PICTURE, options, TEXTS)
    assert first == encode_picture(PICTURE.copy(), options, dict(TEXTS))
    assert first != encode_picture(PICTURE, options, TEXTS | {"seed": "8"})
    assert opened(first).format == format.upper()


def test_png_keeps_every_pixel_and_its_texts_in_any_script():
    image = opened(encode_picture(PICTURE, OutputOptions("png"), TEXTS))
    assert np.array_equal(np.asarray(image), PICTURE)
    assert image.text == TEXTS


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_texts_that_exif_cannot_hold_are_left_out(format):
    options = OutputOptions(format, 80)
    short = opened(encode_picture(PICTURE, options, {"prompt": "x" * 50_000}))
    comment = short.getexif().get_ifd(0x8769)[0x9286]
    assert json.loads(comment.removeprefix(b"ASCII\0\0\0")) == {"prompt": "x" * 50_000}
    long = opened(encode_picture(PICTURE, options, {"prompt": "x" * 70_000}))
    assert not long.getexif()
    assert long.size == (16, 16)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_preview_has_no_texts(format):
    image = opened(encode_picture(PICTURE, OutputOptions(format), {}))
    assert not getattr(image, "text", None)
    assert not image.getexif()


@pytest.mark.parametrize("quality", [0, 1, 50, 100])
@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_every_quality_gives_a_picture(format, quality):
    image = opened(encode_picture(PICTURE, OutputOptions(format, quality), TEXTS))
    error = np.abs(np.asarray(image, int) - PICTURE)
    assert error.mean() < (60 if quality < 50 else 10)
