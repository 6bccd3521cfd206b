"""Ranges of activations: levels that hit zero, and clipping where it lowers the error."""

from __future__ import annotations

import numpy as np
import pytest

from export.diffusion.quantization.ranges import ActivationRange, RangeMeter


def measured(*runs):
    meter = RangeMeter()
    for values in runs:
        meter.add(np.asarray(values, np.float32))
    return meter.range()


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
    found = measured(np.zeros((2, 8)))
    assert found.scale > 0
    assert quantized(np.zeros(3), found).tolist() == [0, 0, 0]


def test_a_range_covers_what_any_run_had():
    found = measured(np.linspace(-1, 0, 500), np.linspace(0, 4, 500))
    assert found.low == pytest.approx(-1, abs=0.1)
    assert found.high == pytest.approx(4, abs=0.3)


def test_rare_large_values_are_clipped_where_that_lowers_the_error():
    runs = np.random.default_rng(0).standard_normal((8, 250_000))
    runs[3, 123] = 60
    found = measured(*runs)
    whole = ActivationRange(float(runs.min()), 60.0)
    assert found.high < 30
    errors = [np.square(quantized(runs, one) - runs).mean() for one in (found, whole)]
    assert errors[0] < 0.5 * errors[1]


def test_the_range_is_near_the_best_of_all_that_can_be_tried():
    values = np.random.default_rng(1).laplace(size=100_000).astype(np.float32)
    found = measured(values)
    error = np.square(quantized(values, found) - values).mean()
    others = [ActivationRange(-limit, limit) for limit in np.linspace(2, 12, 40)]
    best = min(np.square(quantized(values, one) - values).mean() for one in others)
    assert error < 1.1 * best


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(wrong):
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        measured([0.0, wrong])
