"""Pictures decoded in tiles: no seam where the decoder is local, and no run larger than a tile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.image.tiling import BYTES_PER_PIXEL, Tiling

SCALE = 2


class LocalDecoder:
    """Every latent becomes a square of pixels, whatever is around it."""

    def __init__(self):
        self.sides = []

    def __call__(self, latents):
        self.sides.append(max(latents.shape[2:]))
        return latents[:, :3].repeat(SCALE, axis=2).repeat(SCALE, axis=3)


def tiling(mode="on", tile_size=8, available=lambda: 0):
    return Tiling(mode=mode, tile_size=tile_size, scale=SCALE, available=available)


def latents(height, width):
    return np.random.default_rng(0).standard_normal((2, 4, height, width), dtype=np.float32)


@given(height=st.integers(1, 40), width=st.integers(1, 40), tile_size=st.integers(4, 16))
def test_tiles_of_a_local_decoder_make_the_whole_picture(height, width, tile_size):
    whole, decoder = latents(height, width), LocalDecoder()
    found = tiling(tile_size=tile_size).decode(decoder, whole)
    assert np.allclose(found, LocalDecoder()(whole), atol=1e-5)
    assert max(decoder.sides) <= tile_size


def test_neighbours_overlap_so_that_a_difference_between_them_fades():
    class Brighter:
        count = 0.0

        def __call__(self, part):
            self.count += 1
            return np.full((1, 3, part.shape[2] * SCALE, part.shape[3] * SCALE), self.count)

    row = tiling().decode(Brighter(), latents(8, 14)[:1])[0, 0, 0]
    assert (row[0], row[-1]) == (1, 2)
    steps = np.diff(row)
    assert steps.min() >= 0
    assert steps.max() < 0.5


@pytest.mark.parametrize(
    ("mode", "available", "runs"),
    [("off", 0, 1), ("on", 1 << 40, 9), ("auto", 0, 9), ("auto", 1 << 40, 1)],
)
def test_tiles_are_made_as_asked_or_where_memory_is_short(mode, available, runs):
    decoder = LocalDecoder()
    tiling(mode, available=lambda: available).decode(decoder, latents(16, 16))
    assert len(decoder.sides) == runs


def test_what_is_needed_grows_with_the_pixels():
    whole = latents(16, 16)
    needed = 16 * 16 * SCALE**2 * BYTES_PER_PIXEL
    for available, runs in ((needed, 1), (needed - 1, 9)):
        decoder = LocalDecoder()
        tiling("auto", available=lambda free=available: free).decode(decoder, whole)
        assert len(decoder.sides) == runs


def test_tiles_too_small_to_overlap_are_refused():
    with pytest.raises(ValueError, match="6 pixels a side are too small: 8 is the least"):
        tiling(tile_size=3)
