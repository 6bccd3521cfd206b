"""Says what a scene shows, in many natural ways; what is left out may be drawn anyhow."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from types import MappingProxyType

from demos.diffusion_training.scenes import Scene, Shape

_Words = Mapping[str, tuple[str, ...]]

KIND_WORDS: _Words = MappingProxyType(
    {
        "circle": ("circle",) * 5 + ("disc", "dot"),
        "square": ("square",) * 6 + ("box",),
        "triangle": ("triangle",),
        "star": ("star",) * 6 + ("five-pointed star",),
    }
)
COLOUR_WORDS: _Words = MappingProxyType(
    {"purple": ("purple",) * 4 + ("violet",), "cyan": ("cyan",) * 4 + ("turquoise",)}
)
SIZE_WORDS: _Words = MappingProxyType(
    {
        "small": ("small", "small", "little", "tiny"),
        "medium": ("medium", "medium-sized"),
        "big": ("big", "big", "large", "large", "huge"),
    }
)
PLACE_WORDS: _Words = MappingProxyType(
    {
        "top left": ("in the top left corner", "at the top left", "in the upper left"),
        "top": ("at the top", "in the upper half", "at the top edge"),
        "top right": ("in the top right corner", "at the top right", "in the upper right"),
        "left": ("on the left", "on the left side", "at the left"),
        "center": ("in the center", "in the middle", "in the centre", "at the center"),
        "right": ("on the right", "on the right side", "at the right"),
        "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left"),
        "bottom": ("at the bottom", "in the lower half", "at the bottom edge"),
        "bottom right": ("in the bottom right corner", "at the bottom right", "in the lower right"),
    }
)
_SIZE_SHARE = MappingProxyType({"small": 0.6, "medium": 0.15, "big": 0.6})
_PLACE_SHARE = 0.65
_PAIR_PLACE_SHARE = 0.5
_BACKGROUND_SHARE = 0.95
EMPTY_SHARE = 0.1
_OPENING_SHARE, _ENDING_SHARE, _STRANGE_SHARE = 0.25, 0.12, 0.04

_BEFORE_PAIR = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "top": ("above", "over", "on top of"),
    "bottom": ("below", "under", "beneath"),
}
_OPENINGS = (
    "a picture of", "an image of", "a drawing of", "a painting of", "a photo of", "an icon of",
    "draw", "please draw", "draw me", "paint", "show me", "show", "create", "make", "generate",
    "i want", "there is", "imagine", "this is",
)  # fmt: skip
_ENDINGS = (
    "please", "high quality", "flat design", "simple", "minimal", "vector art", "best quality",
    "clean lines", "4k", "poster", "sharp", "illustration", "flat colors", "geometric", "detailed",
)  # fmt: skip


def draw_caption(rng: Random, scene: Scene) -> str:
    """A caption as the denoiser is trained on; empty in one of ten, for guidance."""
    if rng.random() < EMPTY_SHARE:
        return ""
    text = describe(rng, scene)
    if rng.random() < _OPENING_SHARE:
        text = f"{rng.choice(_OPENINGS)} {text}"
    if rng.random() < _ENDING_SHARE:
        text = f"{text}, {rng.choice(_ENDINGS)}"
    if rng.random() < _STRANGE_SHARE:
        text = f"{text} {_strange_word(rng)}"
    return text + rng.choice((".", "", "", ""))


def describe(rng: Random, scene: Scene) -> str:
    """One sentence about a scene."""
    background = _background(rng, scene) if rng.random() < _BACKGROUND_SHARE else None
    subject = _single(rng, scene.shapes[0]) if len(scene.shapes) == 1 else _pair(rng, scene)
    if background is None:
        return subject
    return rng.choice(
        (
            f"{subject} on {background}",
            f"{subject} on {background}",
            f"{subject}, on {background}",
            f"{subject}, {_without_article(background)}",
            f"{subject} in front of {background}",
            f"{subject} over {background}",
            f"on {background}, {subject}",
            f"{background} with {subject}",
            f"{_without_article(background)}, {subject}",
        )
    )


def _background(rng: Random, scene: Scene) -> str:
    colour = _colour(rng, scene.background)
    word = rng.choice(("background",) * 6 + ("backdrop", "ground"))
    return _with_article(f"{colour} {word}")


def _single(rng: Random, shape: Shape) -> str:
    noun = noun_phrase(rng, shape)
    if rng.random() < 0.06:
        noun = f"one shape: {noun}"
    if rng.random() >= _PLACE_SHARE:
        return noun
    place = rng.choice(PLACE_WORDS[shape.place])
    return rng.choice((f"{noun} {place}", f"{noun} {place}", f"{noun}, {place}", f"{place} {noun}"))


def _pair(rng: Random, scene: Scene) -> str:
    """Two shapes, in either order, and often how they lie."""
    shapes = list(scene.shapes)
    if rng.random() < 0.5:
        shapes.reverse()
    first = shapes[0]
    nouns = [noun_phrase(rng, shape) for shape in shapes]
    opening = "two shapes: " if rng.random() < 0.15 else ""
    if rng.random() >= _PAIR_PLACE_SHARE:
        words = ("and", "and", "with") + (("next to", "beside") if _lies_flat(first) else ())
        return f"{opening}{nouns[0]} {rng.choice(words)} {nouns[1]}"
    if rng.random() < 0.5:
        return f"{opening}{nouns[0]} {rng.choice(_BEFORE_PAIR[first.place])} {nouns[1]}"
    places = [rng.choice(PLACE_WORDS[shape.place]) for shape in shapes]
    comma = rng.choice((",", "", ""))
    return f"{opening}{nouns[0]} {places[0]}{comma} and {nouns[1]} {places[1]}"


def _lies_flat(shape: Shape) -> bool:
    return shape.place in ("left", "right")


def noun_phrase(rng: Random, shape: Shape) -> str:
    """What a shape is, with its colour and perhaps its size."""
    words = [_colour(rng, shape.colour), rng.choice(KIND_WORDS[shape.kind])]
    if rng.random() < _SIZE_SHARE[shape.size]:
        words.insert(0, rng.choice(SIZE_WORDS[shape.size]))
    phrase = " ".join(words)
    return phrase if rng.random() < 0.1 else _with_article(phrase)


def _colour(rng: Random, colour: str) -> str:
    return rng.choice(COLOUR_WORDS.get(colour, (colour,)))


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _without_article(phrase: str) -> str:
    return phrase.split(" ", 1)[1]


def _strange_word(rng: Random) -> str:
    """A word that means nothing, so that unknown words of a prompt do little harm."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8)))
