"""Levels of inputs: a step for each channel around one zero point, and zero is hit exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.diffusion.quantization.levels import InputLevels, channel_levels
from export.diffusion.quantization.ranges import ActivationRange

SIZES = st.floats(0, 1e4, width=32)
CHANNELS = st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=40)


def channels(pairs):
    return tuple(ActivationRange(-low, high) for low, high in pairs)


def alike(found):
    """The same step for all channels."""
    whole = ActivationRange(min(one.low for one in found), max(one.high for one in found))
    return InputLevels(whole.scale, np.ones(len(found), np.float32), whole.zero_point)


def rounded(values, levels):
    """What is left of values [C, ...] after they were uint8."""
    steps = (levels.step * levels.relative)[:, None]
    found = np.clip(np.rint(values / steps) + levels.zero_point, 0, 255)
    return (found - levels.zero_point) * steps


@given(CHANNELS)
def test_every_channel_holds_its_range_and_zero(pairs):
    found = channels(pairs)
    levels = channel_levels(found)
    assert levels.step > 0
    assert 0 <= levels.zero_point <= 255
    assert (levels.relative > 0).all()
    assert levels.relative.max() <= 1
    ends = np.array([[one.low, 0.0, one.high] for one in found])
    errors = np.abs(rounded(ends, levels) - ends)
    assert (errors[:, 1] == 0).all()
    assert (errors <= 0.51 * (levels.step * levels.relative)[:, None]).all()


@given(CHANNELS)
def test_steps_are_no_wider_than_those_of_one_range_for_all(pairs):
    found = channels(pairs)
    levels = channel_levels(found)
    mean_step = levels.step * np.sqrt(np.square(levels.relative).mean())
    assert mean_step <= 1.02 * alike(found).step


def test_one_wide_channel_leaves_the_others_their_precision():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((8, 1000))
    values[3] *= 100
    found = tuple(ActivationRange(float(row.min()), float(row.max())) for row in values)
    others = np.arange(8) != 3
    by_channel, in_one = (
        np.square(rounded(values, levels) - values)[others].mean()
        for levels in (channel_levels(found), alike(found))
    )
    assert by_channel < in_one / 30


@pytest.mark.parametrize(("low", "high", "zero_point"), [(0.0, 3.0, 0), (3.0, 0.0, 255)])
def test_values_of_one_sign_take_all_levels(low, high, zero_point):
    levels = channel_levels(channels([(low, high), (low / 9, high / 9)]))
    assert levels.zero_point == zero_point
    assert levels.step == pytest.approx(3 / 255)
    assert levels.relative.tolist() == pytest.approx([1, 1 / 3])


def test_channels_that_are_always_zero_can_be_divided_by_their_step():
    levels = channel_levels(channels([(0, 0), (0, 0)]))
    assert levels.step * levels.relative.min() > 0
