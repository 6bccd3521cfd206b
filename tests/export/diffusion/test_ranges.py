"""Ranges of activations: levels that hit zero, and clipping where it lowers the error."""

from __future__ import annotations

import numpy as np
import pytest

from export.diffusion.quantization.ranges import ActivationRange, RangeMeter, channel_margin


def measured(*runs, axis=0):
    meter = RangeMeter(axis)
    for values in runs:
        meter.add(np.asarray(values, np.float32))
    return meter.measured()


def clipped(*runs):
    return measured(*runs).clipped


def quantized(values, found):
    levels = np.clip(np.rint(values / found.scale) + found.zero_point, 0, 255)
    return (levels - found.zero_point) * found.scale


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 5.0), (-0.28, 7.5), (-2.0, 0.0)])
def test_zero_is_a_level_of_every_range(low, high):
    found = ActivationRange(low, high)
    assert 0 <= found.zero_point <= 255
    assert quantized(np.zeros(1), found) == 0
    assert abs(quantized(np.array([high]), found)[0] - high) <= found.scale
    assert abs(quantized(np.array([low]), found)[0] - low) <= found.scale


def test_values_that_are_all_zero_have_a_range_that_can_be_divided_by():
    found = clipped(np.zeros((2, 8)))
    assert found.scale > 0
    assert quantized(np.zeros(3), found).tolist() == [0, 0, 0]


def test_a_range_covers_what_any_run_had():
    found = clipped(np.linspace(-1, 0, 500), np.linspace(0, 4, 500))
    assert found.low == pytest.approx(-1, abs=0.1)
    assert found.high == pytest.approx(4, abs=0.3)


def test_rare_large_values_are_clipped_where_that_lowers_the_error():
    runs = np.random.default_rng(0).standard_normal((8, 250_000))
    runs[3, 123] = 60
    found = clipped(*runs)
    whole = ActivationRange(float(runs.min()), 60.0)
    assert found.high < 30
    errors = [np.square(quantized(runs, one) - runs).mean() for one in (found, whole)]
    assert errors[0] < 0.5 * errors[1]


def test_the_range_is_near_the_best_of_all_that_can_be_tried():
    values = np.random.default_rng(1).laplace(size=100_000).astype(np.float32)
    found = clipped(values)
    error = np.square(quantized(values, found) - values).mean()
    others = [ActivationRange(-limit, limit) for limit in np.linspace(2, 12, 40)]
    best = min(np.square(quantized(values, one) - values).mean() for one in others)
    assert error < 1.1 * best


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(wrong):
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        measured([0.0, wrong])


def test_whole_ranges_hold_everything_and_zero():
    found = measured([[-1.0, 2.0], [5.0, 6.0]], [[-3.0, 0.0], [9.0, 4.0]])
    assert found.whole == ActivationRange(-3.0, 9.0)
    assert found.channels == (ActivationRange(-3.0, 2.0), ActivationRange(0.0, 9.0))
    assert found.mean.tolist() == [-0.5, 6.0]


def test_channels_lie_on_the_axis_that_was_named():
    image, rows = np.zeros((2, 3, 4, 5)), np.zeros((2, 7, 6))
    image[:, 1], rows[..., 5] = 4, -2
    assert measured(image, axis=1).mean.tolist() == [0, 4, 0]
    assert measured(rows, axis=-1).mean.tolist() == [0] * 5 + [-2]


def test_a_channel_has_room_for_more_than_was_seen_but_not_for_more_than_all_channels_had():
    found = measured([[-1.0, 1.0], [-10.0, 12.0]])
    narrow, wide = found.channel_ranges(clips=False, num_pictures=8)
    assert narrow == ActivationRange(-1.5, 1.5)
    assert wide == ActivationRange(-10.0, 12.0)
    for channel in found.channel_ranges(clips=True, num_pictures=8):
        assert found.clipped.low <= channel.low <= 0 <= channel.high <= found.clipped.high


def test_the_room_shrinks_as_more_pictures_are_seen():
    found = measured([[-1.0, 1.0], [-10.0, 12.0]])
    narrow, _ = found.channel_ranges(clips=False, num_pictures=32)
    assert narrow == ActivationRange(-1.25, 1.25)
    assert channel_margin(1) > channel_margin(8) == 1.5 > channel_margin(1000) > 1
