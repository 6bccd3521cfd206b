"""Settings that an export gives an engine in place of its pipeline's."""

from __future__ import annotations

import pytest

from export.diffusion.defaults import with_defaults
from export.errors import ExportError
from tests.engines.image.fake_runner import make_spec


def test_what_is_asked_for_replaces_the_model_s_and_the_rest_stays():
    spec = with_defaults(make_spec(), 20, None)
    assert spec.default_num_inference_steps == 20
    assert spec.default_guidance_scale == make_spec().default_guidance_scale
    assert with_defaults(make_spec(), None, 3).default_guidance_scale == 3.0
    assert with_defaults(make_spec(), None, None) == make_spec()


@pytest.mark.parametrize(
    ("steps", "scale", "message"),
    [
        (0, None, "--num-inference-steps is 0, but it must be between 1 and 150"),
        (151, None, "--num-inference-steps is 151"),
        (None, 21, "--guidance-scale is 21, but it must be between 0 and 20"),
    ],
)
def test_what_no_request_could_ask_for_is_refused(steps, scale, message):
    with pytest.raises(ExportError, match=message):
        with_defaults(make_spec(), steps, scale)


def test_a_model_without_guidance_gets_none():
    spec = make_spec(guidance="none", default_guidance_scale=1.0)
    assert with_defaults(spec, None, 1).default_guidance_scale == 1.0
    with pytest.raises(ExportError, match="knows no guidance"):
        with_defaults(spec, None, 3)
