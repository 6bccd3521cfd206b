"""Sizes: what a request may say, and which one is nearest to a picture."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InvalidRequest
from server.images.sizes import Size, choose_size, nearest_size
from tests.engines.image.fake_runner import make_spec

SPEC = make_spec(size_multiple=8, max_pixels=512 * 768, default_width=512, default_height=256)


@pytest.mark.parametrize("given_size", [None, "auto"])
def test_auto_is_the_engines_own_size_or_near_that_of_the_picture(given_size):
    assert choose_size(given_size, SPEC) == Size(512, 256)
    assert choose_size(given_size, SPEC, Size(99, 301)) == Size(96, 304)


def test_a_size_is_width_and_height():
    assert choose_size("64x128", SPEC, Size(5, 5)) == Size(64, 128)
    assert str(Size(64, 128)) == "64x128"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("big", "it must be auto or WIDTHxHEIGHT"),
        ("", "it must be auto or WIDTHxHEIGHT"),
        ("64", "it must be auto or WIDTHxHEIGHT"),
        ("64*64", "it must be auto or WIDTHxHEIGHT"),
        ("0x64", "it must be auto or WIDTHxHEIGHT"),
        ("-8x64", "it must be auto or WIDTHxHEIGHT"),
        ("64x64 ", "it must be auto or WIDTHxHEIGHT"),
        ("٦٤x64", "it must be auto or WIDTHxHEIGHT"),
        ("60x64", "width and height must be multiples of 8"),
        ("64x65", "width and height must be multiples of 8"),
        ("1024x1024", "a picture may have at most 393216 pixels"),
        ("99992x8", "a picture may have at most 393216 pixels"),
    ],
)
def test_other_sizes_are_refused_by_name(text, sentence):
    with pytest.raises(InvalidRequest, match=sentence) as caught:
        choose_size(text, SPEC)
    assert caught.value.param == "size"


def test_a_side_may_have_a_limit_of_its_own():
    spec = make_spec(size_multiple=8, max_pixels=512 * 768, max_side=600)
    with pytest.raises(InvalidRequest, match="a side may have at most 600 pixels"):
        choose_size("608x8", spec)
    assert nearest_size(Size(3000, 100), spec) == Size(600, 16)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([None, 400, 1000]))
def test_the_nearest_size_can_always_be_drawn_and_keeps_the_shape(width, height, max_side):
    spec = make_spec(size_multiple=16, max_pixels=256 * 256, max_side=max_side)
    size = nearest_size(Size(width, height), spec)
    assert choose_size(str(size), spec) == size
    if min(size.width, size.height) >= 64:
        assert size.width / size.height == pytest.approx(width / height, rel=0.3)
    if width <= 256 and height <= 256 and max_side is None:
        assert abs(size.width - width) <= 16
        assert abs(size.height - height) <= 16
