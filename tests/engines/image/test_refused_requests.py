"""What a request may not ask for, and what an engine may not be given."""

from __future__ import annotations

import numpy as np
import pytest

from engines.errors import InvalidRequest
from engines.image.scheduler import ImageSchedulerConfig
from tests.engines.image.fake_runner import make_engine, make_request, make_spec

BLACK = np.zeros((8, 8, 3), np.uint8)
WHITE = np.full((8, 8), 255, np.uint8)


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"height": 7}, "height", "height is 7, but it must be a multiple of 2"),
        ({"width": 40}, "size", "size is 40x8, but a picture may have at most 256 pixels"),
        ({"scheduler": "magic"}, "scheduler", "scheduler is 'magic', but it must be one of"),
        (
            {"prompt_token_ids": ((1, 2),)},
            "prompt_token_ids",
            "prompt_token_ids has 2 ids, but a text has 5",
        ),
        (
            {"prompt_token_ids": ((1, 2, 3, 4, 50),)},
            "prompt_token_ids",
            "prompt_token_ids has the token id 50, but ids run from 0 to 49",
        ),
        (
            {"negative_token_ids": ()},
            "negative_token_ids",
            "negative_token_ids has ids for 0 text encoders, but the model has 1",
        ),
        (
            {"image": np.zeros((8, 8, 3), np.uint8), "strength": 0.1},
            "strength",
            "strength is 0.1, but with 4 steps it has to be at least 0.25 for a single one",
        ),
    ],
)
def test_what_the_model_cannot_do_is_refused_by_name(changes, param, message):
    engine = make_engine()
    with pytest.raises(InvalidRequest, match=message) as refused:
        engine.add(make_request(1, **changes))
    assert refused.value.param == param
    assert not engine.has_work


def test_step_caching_is_refused_where_the_model_has_none():
    engine = make_engine(spec=make_spec(shallow_denoiser=None))
    message = "cache_interval is 3, but the engine has no step caching, so it must be 1"
    with pytest.raises(InvalidRequest, match=message) as refused:
        engine.add(make_request(1, cache_interval=3))
    assert refused.value.param == "cache_interval"
    engine.add(make_request(1, cache_interval=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_steps": 151}, "num_inference_steps is 151, but it must be between 1 and"),
        ({"guidance_scale": 20.5}, "guidance_scale is 20.5, but it must be between 0 and 20"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"seed": 2**63}, "seed is 9223372036854775808, but it must be between 0 and 922"),
        ({"height": 0}, "height is 0, but it must be at least 1"),
        ({"strength": 1.5}, "strength is 1.5, but it must be between 0 and 1"),
        ({"image": np.zeros((4, 8, 3), np.uint8)}, r"image has the shape \(4, 8, 3\)"),
        ({"cache_interval": 0}, "cache_interval is 0, but it must be between 1 and 150"),
        ({"mask": WHITE}, "mask is given without image, but it says what to keep of one"),
        (
            {"image": BLACK, "mask": WHITE[:, :4]},
            r"mask has the shape \(8, 4\), but it must be \(8, 8\), the image's",
        ),
        (
            {"image": BLACK, "mask": WHITE // 3},
            "mask is at most 85, but a pixel is repainted from 128 on, so there is nothing",
        ),
    ],
)
def test_a_field_out_of_its_range_is_named_when_the_request_is_built(changes, message):
    with pytest.raises(ValueError, match=message):
        make_request(1, **changes)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_num_images": 0}, "max_num_images is 0, but it must be at least 1"),
        ({"max_rows": 1}, "max_rows is 1, but it must be at least 2"),
        ({"max_batch_pixels": 0}, "max_batch_pixels is 0, but it must be at least 1"),
    ],
)
def test_limits_too_small_for_a_single_request_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        ImageSchedulerConfig(**limits)
