"""Image engines on a GPU: near the CPU engine's pictures, and the same with neighbours."""

from __future__ import annotations

import pytest

from benchmarks.gpu.images import measure_nearness

pytestmark = pytest.mark.gpu

# precision -> PSNR in dB at least, mean and least
BARS = {"fp32": (50.0, 35.0), "fp16": (35.0, 20.0)}


def assert_near(figures):
    least_mean, least = BARS[figures.precision]
    assert figures.psnr_mean >= least_mean
    assert figures.psnr_min >= least


@pytest.mark.parametrize("precision", BARS)
def test_cuda_draws_what_the_cpu_draws(gpu, work, precision):
    assert_near(measure_nearness(work, "cuda", precision))


@pytest.mark.parametrize("precision", BARS)
def test_plans_draw_what_the_cpu_draws(tensorrt, work, precision):
    assert_near(measure_nearness(work, "tensorrt", precision))
