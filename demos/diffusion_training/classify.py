"""Reads a picture back: from pixels to the colours, kinds, sizes and places of its shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from demos.diffusion_training.drawing import FloatArray, Picture, cover
from demos.diffusion_training.scenes import COLOURS, KINDS, PLACES

MAX_SHAPES = 2
_BORDER = 4  # pixels along the edges that show the background
_LEAST_AREA = 0.003  # of the picture; what is smaller is no shape
_SIZE_LIMITS = (("small", 0.125), ("medium", 0.18), ("big", math.inf))  # up to this radius
_NAMES = tuple(COLOURS)
_LEVELS = np.array(list(COLOURS.values()), np.float32)  # [num_colours, 3]
# Area of a shape of radius 1, and how far its centre of gravity lies below its centre.
_AREAS: Mapping[str, float] = MappingProxyType(
    {
        "circle": math.pi,
        "square": 4 * 0.87**2,
        "triangle": 0.75 * math.sqrt(3) * 1.2**2,
        "star": 1.1226 * 1.15**2,
    }
)
_DROPS: Mapping[str, float] = MappingProxyType(
    {"circle": 0.0, "square": 0.0, "triangle": 0.18, "star": 0.0}
)


@dataclass(frozen=True, slots=True)
class FoundShape:
    """A shape in a picture; `overlap` is how well its outline fits the kind, 1 is perfect."""

    kind: str
    colour: str
    size: str
    place: str
    overlap: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What a picture shows, the largest shape first."""

    background: str
    shapes: tuple[FoundShape, ...]


def classify(picture: Picture) -> Findings:
    """Name what a picture shows. [H, W, 3]

    The background is the colour that most of the border is nearest to; shapes are the areas of
    the other colours.
    """
    names = nearest_colours(picture)
    background = _most_frequent(_border(names))
    areas = _areas(names, background)
    return Findings(
        _NAMES[background],
        tuple(_describe(picture, background, colour, areas[colour]) for colour in areas),
    )


def nearest_colours(picture: Picture) -> NDArray[np.intp]:
    """The index in `COLOURS` that each pixel is nearest to. [H, W]"""
    differences = picture[:, :, None, :].astype(np.float32) - _LEVELS  # [H, W, num_colours, 3]
    nearest: NDArray[np.intp] = np.square(differences).sum(-1).argmin(-1)
    return nearest


def _border(names: NDArray[np.intp]) -> NDArray[np.intp]:
    inside = np.zeros(names.shape, bool)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
    return names[~inside]


def _most_frequent(names: NDArray[np.intp]) -> int:
    return int(np.bincount(names.ravel(), minlength=len(_NAMES)).argmax())


def _areas(names: NDArray[np.intp], background: int) -> dict[int, NDArray[np.bool_]]:
    """The areas of the largest colours but the background's, without the soft edges."""
    areas = {colour: _erode(names == colour) for colour in range(len(_NAMES))}
    del areas[background]
    by_size = sorted(areas, key=lambda colour: -int(areas[colour].sum()))[:MAX_SHAPES]
    least = _LEAST_AREA * names.size
    return {colour: areas[colour] for colour in by_size if areas[colour].sum() >= least}


def _erode(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the pixels that touch another colour: on soft edges they are nearest to anything."""
    padded = np.pad(area, 1, mode="edge")
    eroded: NDArray[np.bool_] = (
        area & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    )
    return eroded


def _describe(
    picture: Picture, background: int, colour: int, area: NDArray[np.bool_]
) -> FoundShape:
    coverage = _coverage(picture, _LEVELS[background], _LEVELS[colour], area)
    size = picture.shape[1]
    mass = float(coverage.sum())
    rows, columns = (np.arange(length, dtype=np.float32) + 0.5 for length in coverage.shape)
    x = float((coverage.sum(0) * columns).sum()) / mass / size
    y = float((coverage.sum(1) * rows).sum()) / mass / size
    overlaps = {}
    for kind in KINDS:
        radius = math.sqrt(mass / _AREAS[kind]) / size
        template = cover(coverage.shape, kind, (x, y - _DROPS[kind] * radius), radius)
        overlaps[kind] = float(
            np.minimum(coverage, template).sum() / np.maximum(coverage, template).sum()
        )
    kind = max(overlaps, key=lambda name: overlaps[name])
    radius = math.sqrt(mass / _AREAS[kind]) / size
    return FoundShape(
        kind,
        _NAMES[colour],
        next(name for name, limit in _SIZE_LIMITS if radius < limit),
        _nearest_place(x, y - _DROPS[kind] * radius),
        overlaps[kind],
    )


def _coverage(
    picture: Picture, background: FloatArray, colour: FloatArray, area: NDArray[np.bool_]
) -> FloatArray:
    """How much of each pixel a shape covers, 0 to 1, in its area and on its soft edge. [H, W]"""
    axis = colour - background
    along = (picture.astype(np.float32) - background) @ (axis / (axis @ axis))
    near = ~_erode(_erode(~area))
    coverage: FloatArray = np.where(near, np.clip(along, 0, 1), np.float32(0))
    return coverage


def _nearest_place(x: float, y: float) -> str:
    return min(PLACES, key=lambda name: math.dist(PLACES[name], (x, y)))
