"""Decode a picture in overlapping tiles, so that the decoder's memory does not grow with it.

Where tiles overlap, both are blended: each fades out towards its edge. Norms and attention inside
the decoder see one tile only, so a tiled picture differs from a whole one (docs/architecture.md
has by how much).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.image.runner import FloatArray

TilingMode = Literal["auto", "on", "off"]
Decode = Callable[[FloatArray], FloatArray]

_OVERLAP = 4  # of a tile's side, one part is shared with each neighbour
# What a decoder holds at once for a pixel of its result, reckoned, not measured: those of all
# families have 128 channels of 4 bytes at full size, and 256 where they arrive there.
BYTES_PER_PIXEL = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """When and how pictures are decoded in tiles.

    Attributes:
        mode: `auto` where the whole picture would not fit into what is available.
        tile_size: Latents a side of a tile.
        scale: Pixels a side of a latent.
        available: Bytes that a decoder may still take.

    Raises:
        ValueError: The tiles are too small to overlap.
    """

    mode: TilingMode
    tile_size: int
    scale: int
    available: Callable[[], int]

    def __post_init__(self) -> None:
        if self.tile_size < _OVERLAP:
            raise ValueError(
                f"tiles of {self.tile_size * self.scale} pixels a side are too small: "
                f"{_OVERLAP * self.scale} is the least"
            )

    def decode(self, decode: Decode, latents: FloatArray) -> FloatArray:
        """Latents [n, C, h, w] to pictures [n, 3, height, width], as `decode` does."""
        height, width = latents.shape[2:]
        if max(height, width) <= self.tile_size or not self._is_needed(height * width):
            return decode(latents)
        return _decode_tiles(decode, latents, self.tile_size, self.scale)

    def _is_needed(self, num_latents: int) -> bool:
        if self.mode != "auto":
            return self.mode == "on"
        return num_latents * self.scale**2 * BYTES_PER_PIXEL > self.available()


def _decode_tiles(decode: Decode, latents: FloatArray, tile_size: int, scale: int) -> FloatArray:
    num, _, height, width = latents.shape
    pictures: FloatArray | None = None
    weights = np.zeros((height * scale, width * scale), np.float32)
    for top in _starts(height, tile_size):
        for left in _starts(width, tile_size):
            tile = decode(latents[:, :, top : top + tile_size, left : left + tile_size])
            rows = slice(top * scale, top * scale + tile.shape[2])
            columns = slice(left * scale, left * scale + tile.shape[3])
            weight = np.outer(_fade(tile.shape[2]), _fade(tile.shape[3]))
            if pictures is None:
                pictures = np.zeros((num, tile.shape[1], *weights.shape), np.float32)
            pictures[:, :, rows, columns] += tile * weight
            weights[rows, columns] += weight
    assert pictures is not None
    pictures /= weights
    return pictures


def _starts(length: int, tile_size: int) -> list[int]:
    """Where tiles begin that cover `length` evenly, each sharing a part with the next."""
    if length <= tile_size:
        return [0]
    most = tile_size - tile_size // _OVERLAP  # from one tile to the next
    count = -(-(length - tile_size) // most) + 1
    return [round(index * (length - tile_size) / (count - 1)) for index in range(count)]


def _fade(length: int) -> NDArray[np.float32]:
    """1 in the middle of a tile, and less and less towards both ends. [length]"""
    edge = max(length // _OVERLAP, 1)
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.minimum(distance / edge, 1).astype(np.float32)
