"""The part of a GPU's benchmark that draws, on a GPU of host memory."""

from __future__ import annotations

from benchmarks.gpu.images import Nearness, Speed, measure_nearness, render_images


def test_the_demo_on_plans_in_half_precision_is_near_the_cpu_engine(host_tensorrt, tmp_path):
    figures = measure_nearness(tmp_path, "tensorrt", "fp16", num_pictures=1)
    assert (figures.target, figures.precision) == ("tensorrt", "fp16")
    assert 30 < figures.psnr_min <= figures.psnr_mean < 100


def test_the_report_names_speed_and_goal():
    text = render_images(
        [Nearness("cuda", "fp16", 48.25, 40.04)],
        [Speed("cuda", "fp16", 1024, 2.511, 0.0802, 9.0)],
    )
    assert "| 1024 px, 30 steps, fp16, cuda | 2.51 | 2.3 | 80.2 | 9.0 |" in text
    assert "| fp16, cuda | 48.2 | 40.0 |" in text
