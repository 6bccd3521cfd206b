"""The table of picture quality: what is compared, what is read in the pictures, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.images.quality import Drawn, QualityConfig, psnr, report
from demos.diffusion_training.prompts import held_out_prompts
from demos.diffusion_training.scenes import COLOURS

PROMPTS = held_out_prompts(4)


def backgrounds(shift=0):
    """Pictures of the right background and nothing else; `shift` is added to every level."""
    pictures = [np.full((32, 32, 3), COLOURS[prompt.background]) + shift for prompt in PROMPTS]
    return Drawn(tuple(picture.clip(0, 255).astype(np.uint8) for picture in pictures), 1.25)


def rows_of(table):
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    head, _, *rows = cells
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_psnr_is_that_of_the_mean_squared_error():
    picture = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(picture, picture) == 100
    assert psnr(picture, picture + np.uint8(5)) == pytest.approx(20 * np.log10(255 / 5))


def test_every_variant_is_held_against_fp32_without_step_caching():
    drawn = {("fp32", 1): backgrounds(), ("int8", 1): backgrounds(2), ("int8", 3): backgrounds(9)}
    rows = rows_of(report(PROMPTS, drawn))
    assert list(rows) == ["fp32", "int8", "int8, every 3 steps in full"]
    assert rows["fp32"]["PSNR mean"] == "-"
    near, far = (float(rows[name]["least"]) for name in list(rows)[1:])
    assert near > far > 20
    assert rows["int8"]["seconds a picture"] == "1.25"


def test_the_classifier_reads_backgrounds_and_misses_shapes_that_are_not_there():
    rows = rows_of(report(PROMPTS, {("fp32", 1): backgrounds()}))
    assert rows["fp32"]["background"] == "4 of 4"
    assert rows["fp32"]["shape colour"] == "0 of 4"


def test_intervals_without_the_reference_are_refused():
    with pytest.raises(ValueError, match="has to hold 1, which the others are compared with"):
        QualityConfig(cache_intervals=(2, 3))
    with pytest.raises(ValueError, match="--count is 0"):
        QualityConfig(count=0)
