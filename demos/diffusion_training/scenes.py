"""`Scene`: what a picture shows. Which combinations are held out is decided here, by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (220, 40, 40),
        "orange": (245, 140, 30),
        "yellow": (250, 220, 50),
        "green": (45, 160, 70),
        "cyan": (70, 205, 225),
        "blue": (40, 80, 210),
        "purple": (130, 55, 170),
        "pink": (245, 140, 190),
        "white": (245, 245, 245),
        "black": (25, 25, 25),
    }
)
KINDS = ("circle", "square", "triangle", "star")
# The centre of a shape, in parts of the picture's width and height.
PLACES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "top left": (0.27, 0.27),
        "top": (0.5, 0.27),
        "top right": (0.73, 0.27),
        "left": (0.27, 0.5),
        "center": (0.5, 0.5),
        "right": (0.73, 0.5),
        "bottom left": (0.27, 0.73),
        "bottom": (0.5, 0.73),
        "bottom right": (0.73, 0.73),
    }
)
# The radius of a shape, in parts of the picture's width.
RADII: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"small": (0.09, 0.12), "medium": (0.13, 0.17), "big": (0.19, 0.23)}
)
PAIRS = (("left", "right"), ("top", "bottom"))
PAIR_SHARE = 0.3
MAX_PAIR_RADIUS = 0.2
_JITTER = 0.025
_HELD_OUT_ONE_IN = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: what a caption can say of it, and where exactly it lies.

    Attributes:
        kind: One of `KINDS`.
        colour: One of `COLOURS`.
        size: One of `RADII`.
        place: One of `PLACES`.
        x: The centre, in parts of the picture's width.
        y: The centre, in parts of the picture's height.
        radius: In parts of the picture's width.
    """

    kind: str
    colour: str
    size: str
    place: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One shape or two, the left or upper one first, on a background of one colour."""

    background: str
    shapes: tuple[Shape, ...]


def is_held_out(kind: str, colour: str, background: str) -> bool:
    """Whether a shape of this colour is never trained on before this background, wherever it lies.

    One combination in ten is.
    """
    digest = hashlib.sha256(f"{kind} {colour} {background}".encode()).digest()
    return digest[0] % _HELD_OUT_ONE_IN == 0


def holds_out(scene: Scene) -> bool:
    """Whether a scene has a shape that is held out."""
    return any(is_held_out(shape.kind, shape.colour, scene.background) for shape in scene.shapes)


def draw_scene(rng: Random, *, held_out: bool = False) -> Scene:
    """A random scene; where `held_out`, one that has a held-out shape, else one that has none."""
    while True:
        scene = _draw_pair(rng) if rng.random() < PAIR_SHARE else _draw_single(rng)
        if holds_out(scene) == held_out:
            return scene


def _draw_single(rng: Random) -> Scene:
    background, colour = rng.sample(list(COLOURS), 2)
    place = rng.choice(list(PLACES))
    return Scene(background, (_draw_shape(rng, rng.choice(KINDS), colour, place),))


def _draw_pair(rng: Random) -> Scene:
    background, *colours = rng.sample(list(COLOURS), 3)
    return Scene(
        background,
        tuple(
            _draw_shape(rng, rng.choice(KINDS), colour, place, MAX_PAIR_RADIUS)
            for colour, place in zip(colours, rng.choice(PAIRS), strict=True)
        ),
    )


def _draw_shape(rng: Random, kind: str, colour: str, place: str, max_radius: float = 1.0) -> Shape:
    size = rng.choice(list(RADII))
    x, y = PLACES[place]
    return Shape(
        kind,
        colour,
        size,
        place,
        x + rng.uniform(-_JITTER, _JITTER),
        y + rng.uniform(-_JITTER, _JITTER),
        min(rng.uniform(*RADII[size]), max_radius),
    )
