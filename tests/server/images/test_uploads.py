"""Uploaded files to pixels: every mode that a file may have, and files that mean no good."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engines.errors import InvalidRequest
from server.images.sizes import Size
from server.images.uploads import Upload, check_upload, read_mask, read_picture
from tests.server.images.apps import file_of, gradient, png

LIMIT = 10_000


def picture(content, width=8, height=8):
    return read_picture(Upload("image", content), Size(width, height), LIMIT)


def mask(content, width=8, height=8):
    return read_mask(Upload("mask", content), Size(width, height), LIMIT)


def refusal(content, limit=LIMIT):
    """What checking, or else decoding, a file says."""
    upload = Upload("image", content)

    def read():
        check_upload(upload, limit)
        read_picture(upload, Size(8, 8), limit)

    with pytest.raises(InvalidRequest) as caught:
        read()
    assert caught.value.param == "image"
    return str(caught.value)


def plain(mode, colour):
    return png(Image.new(mode, (8, 8), colour))


def test_a_picture_of_the_right_size_is_taken_as_it_is():
    assert np.array_equal(picture(png(gradient())), np.asarray(gradient()))


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (plain("1", 1), (255, 255, 255)),
        (plain("L", 77), (77, 77, 77)),
        (plain("LA", (77, 0)), (255, 255, 255)),
        (plain("RGBA", (200, 100, 0, 255)), (200, 100, 0)),
        (plain("RGBA", (200, 100, 0, 0)), (255, 255, 255)),
        (plain("RGBA", (255, 0, 0, 51)), (255, 204, 204)),
        (png(Image.new("RGB", (8, 8), (200, 100, 0)).quantize(4)), (200, 100, 0)),
        (png(Image.new("RGB", (8, 8), "red").quantize(4), transparency=0), (255, 255, 255)),
        (png(Image.new("RGB", (8, 8), "red"), transparency=(255, 0, 0)), (255, 255, 255)),
        (png(Image.fromarray(np.full((8, 8), 32_896, np.uint16))), (128, 128, 128)),
        (png(Image.fromarray(np.full((8, 8), 65_535, np.uint16))), (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb_over_white(content, colour):
    assert np.array_equal(picture(content), np.full((8, 8, 3), colour))


def test_a_cmyk_jpeg_keeps_its_colours():
    red = Image.new("RGB", (8, 8), (250, 10, 10)).convert("CMYK")
    found = picture(file_of(red, "JPEG", quality=100))
    assert np.abs(found.astype(int) - (250, 10, 10)).max() < 12


def test_the_orientation_of_a_camera_is_honoured():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    content = file_of(gradient(12, 6), "PNG", exif=exif)
    assert check_upload(Upload("image", content), LIMIT) == Size(6, 12)
    turned = gradient(12, 6).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(picture(content, 6, 12), np.asarray(turned))


def test_a_picture_is_scaled_with_a_smooth_filter():
    found = picture(png(gradient(64, 64)), 16, 16).astype(int)
    expected = np.asarray(gradient(64, 64).resize((16, 16), Image.Resampling.BOX), int)
    assert found.shape == (16, 16, 3)
    assert np.abs(found - expected)[1:-1, 1:-1].max() < 24


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_size_is_read_from_the_head_of_a_file(format):
    upload = Upload("image", file_of(gradient(30, 20), format))
    assert check_upload(upload, 600) == Size(30, 20)
    with pytest.raises(InvalidRequest, match="30 x 20 pixels, but this server takes at most 599"):
        check_upload(upload, 599)


@pytest.mark.parametrize("side", [20_000, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_head(side, monkeypatch):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000))
    bomb = b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as servers run, else the warning is an error
        assert f"at most {LIMIT}" in refusal(bomb) or "far more than" in refusal(bomb)
    assert "pixels" in refusal(bomb)


def cut(content, part):
    return content[: int(len(content) * part)]


def animation(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    return file_of(frames[0], format, save_all=True, append_images=frames[1:])


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "image is an empty file"),
        (b"hello", "image is not a PNG, JPEG or WebP file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image is not a PNG, JPEG or WebP file"),
        (file_of(gradient(), "GIF"), "image is not a PNG, JPEG or WebP file"),
        (file_of(gradient(), "BMP"), "image is not a PNG, JPEG or WebP file"),
        (animation("PNG"), "image is an animation"),
        (animation("WEBP"), "image is an animation"),
        (cut(png(NOISE), 0.5), "image is damaged or cut off"),
        (cut(file_of(NOISE, "JPEG"), 0.5), "image is damaged or cut off"),
        (cut(file_of(NOISE, "WEBP"), 0.5), "image is damaged or cut off"),
        (png(NOISE)[:20], "image is damaged or cut off"),
        (png(NOISE).replace(b"IDAT", b"IDXT"), "image is damaged or cut off"),
    ],
)
def test_what_is_no_sound_picture_is_refused_in_our_words(content, sentence):
    assert refusal(content).startswith(sentence)


def test_flipped_bytes_never_escape_as_anything_but_a_refusal():
    generator = np.random.default_rng(5)
    refused = 0
    for format in ("PNG", "JPEG", "WEBP"):
        sound = file_of(NOISE, format)
        for _ in range(60):
            content = bytearray(sound)
            for place in generator.integers(0, len(content), 8):
                content[place] = generator.integers(256)
            upload = Upload("image", bytes(content))
            try:
                check_upload(upload, LIMIT)
                assert read_picture(upload, Size(8, 8), LIMIT).shape == (8, 8, 3)
            except InvalidRequest:
                refused += 1
    assert refused > 60


def half(mode, left, right):
    image = Image.new(mode, (8, 8), left)
    ImageDraw.Draw(image).rectangle((4, 0, 7, 7), fill=right)
    return image


RIGHT = np.tile(np.repeat([0, 255], 4).astype(np.uint8), (8, 1))


@pytest.mark.parametrize(
    "image",
    [
        half("RGBA", (9, 9, 9, 255), (9, 9, 9, 0)),
        half("LA", (0, 255), (0, 0)),
        half("L", 0, 255),
        half("1", 0, 1),
        half("RGB", (40, 40, 40), (200, 200, 200)),
        half("RGBA", (0, 0, 0, 255), (255, 255, 255, 255)),
    ],
    ids=["alpha", "grey with alpha", "grey", "bits", "colours", "opaque alpha"],
)
def test_a_mask_repaints_what_is_transparent_or_else_white(image):
    assert np.array_equal(mask(png(image)), RIGHT)


def test_half_transparent_pixels_of_a_mask_are_kept():
    with pytest.raises(InvalidRequest, match="nothing to repaint"):
        mask(png(half("RGBA", (0, 0, 0, 255), (0, 0, 0, 1))))


def test_a_mask_without_anything_to_repaint_is_refused():
    with pytest.raises(InvalidRequest, match="mask has nothing to repaint"):
        mask(png(Image.new("L", (8, 8), 0)))


def test_a_mask_is_scaled_without_grey():
    found = mask(png(half("L", 0, 255).resize((64, 64), Image.Resampling.NEAREST)), 8, 8)
    assert np.array_equal(found, RIGHT)
    assert set(np.unique(mask(png(half("L", 0, 255)), 14, 6))) == {0, 255}


def test_a_view_from_a_second_lens_is_no_animation():
    file = io.BytesIO()
    gradient().save(file, "MPO", save_all=True, append_images=[gradient()], quality=95)
    assert check_upload(Upload("image", file.getvalue()), LIMIT) == Size(8, 8)
    assert picture(file.getvalue()).shape == (8, 8, 3)
