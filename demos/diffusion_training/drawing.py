"""Draws a scene into pixels, with edges one pixel soft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from demos.diffusion_training.scenes import COLOURS, Scene

SIZE = 128  # pixels along each side

FloatArray = NDArray[np.float32]
Picture = NDArray[np.uint8]
Rgb = tuple[float, float, float]


def draw_picture(scene: Scene, size: int = SIZE) -> Picture:
    """The picture of a scene. [size, size, 3]"""
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = COLOURS[scene.background]
    for shape in scene.shapes:
        paint(picture, shape.kind, (shape.x, shape.y), shape.radius, COLOURS[shape.colour])
    return to_levels(picture)


def paint(
    picture: FloatArray, kind: str, centre: tuple[float, float], radius: float, colour: Rgb
) -> None:
    """Paint one shape over a picture of levels up to 255, in place. [H, W, 3]"""
    coverage = cover(picture.shape[:2], kind, centre, radius)[:, :, None]  # [H, W, 1]
    picture += coverage * (np.array(colour, np.float32) - picture)


def cover(
    size: tuple[int, ...], kind: str, centre: tuple[float, float], radius: float
) -> FloatArray:
    """How much of each pixel a shape covers, 0 to 1. [height, width]"""
    height, width = size
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5 - centre[0] * width)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5 - centre[1] * height)
    distance = _DISTANCES[kind](x, y, np.float32(radius * width))
    coverage: FloatArray = np.clip(np.float32(0.5) - distance, 0, 1)
    return coverage


def to_levels(picture: FloatArray) -> Picture:
    levels: Picture = picture.round().clip(0, 255).astype(np.uint8)
    return levels


# Each gives the distance to the outline in pixels, negative inside, from points around the centre.


def _circle(x: FloatArray, y: FloatArray, radius: np.float32) -> FloatArray:
    distance: FloatArray = np.sqrt(x * x + y * y) - radius
    return distance


def _square(x: FloatArray, y: FloatArray, radius: np.float32) -> FloatArray:
    distance: FloatArray = np.maximum(np.abs(x), np.abs(y)) - np.float32(0.87) * radius
    return distance


def _triangle(x: FloatArray, y: FloatArray, radius: np.float32) -> FloatArray:
    """Even sides, one point up, moved down a little so that it looks centred."""
    outer = np.float32(1.2) * radius
    shifted = y - np.float32(0.18) * radius
    farthest: FloatArray = _edge_distances(x, shifted, 3, outer * np.float32(0.5)).max(0)
    return farthest


def _star(x: FloatArray, y: FloatArray, radius: np.float32) -> FloatArray:
    """Five points, one of them up: all that lies behind at least four of five lines."""
    outer = np.float32(1.15) * radius
    inner = outer * np.float32(np.cos(2 * np.pi / 5))  # from the centre to each line
    distances = np.sort(_edge_distances(x, -y, 5, inner), axis=0)
    second: FloatArray = distances[-2]
    return second


def _edge_distances(x: FloatArray, y: FloatArray, num_edges: int, inner: np.float32) -> FloatArray:
    """Distances to lines around the centre, one of them below it. [num_edges, H, W]"""
    angles = (np.arange(num_edges) * (2 * np.pi / num_edges)).astype(np.float32)
    sines, cosines = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return (sines * x + cosines * y - inner).astype(np.float32)


_DISTANCES: Mapping[str, Callable[[FloatArray, FloatArray, np.float32], FloatArray]] = (
    MappingProxyType({"circle": _circle, "square": _square, "triangle": _triangle, "star": _star})
)
