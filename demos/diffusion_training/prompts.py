"""Prompts for combinations that were never trained on, with what their pictures have to show."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from random import Random

from demos.diffusion_training.scenes import COLOURS, KINDS, PLACES, is_held_out

PAIR_EVERY = 5  # one prompt in so many asks for two shapes
_SEED = "held-out prompts"
_OPENINGS = ("", "", "", "a picture of ", "draw ", "an image of ")
_SINGLE_PLACES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "center": "in the center",
    "top left": "in the top left corner",
    "top right": "in the top right corner",
    "bottom left": "in the bottom left corner",
    "bottom right": "in the bottom right corner",
}
_PAIRS = (
    ("{0} left of {1} on {b}", "left", "right"),
    ("{0} above {1} on {b}", "top", "bottom"),
    ("{0} below {1} on {b}", "bottom", "top"),
    ("two shapes: {0} on the left and {1} on the right, on {b}", "left", "right"),
    ("{0} and {1} on {b}", None, None),
)


@dataclass(frozen=True, slots=True)
class WantedShape:
    """What a prompt says of a shape; None where it says nothing."""

    kind: str
    colour: str
    size: str | None
    place: str | None


@dataclass(frozen=True, slots=True)
class HeldOutPrompt:
    """A prompt, and what it says."""

    text: str
    background: str
    shapes: tuple[WantedShape, ...]


def held_out_prompts(count: int) -> list[HeldOutPrompt]:
    """The first `count` of an endless list, always the same; one in five asks for two shapes.

    Every prompt has a shape whose kind and colour were never trained on before its background; all
    such combinations have their turn.
    """
    combinations = [
        combination
        for combination in product(KINDS, COLOURS, COLOURS)
        if combination[1] != combination[2] and is_held_out(*combination)
    ]
    prompts: list[HeldOutPrompt] = []
    while len(prompts) < count:
        rng = Random(f"{_SEED} {len(prompts)}")
        if len(prompts) % len(combinations) == 0:
            rng.shuffle(combinations)
        kind, colour, background = combinations[len(prompts) % len(combinations)]
        draw = _draw_pair if len(prompts) % PAIR_EVERY == PAIR_EVERY - 1 else _draw_single
        prompts.append(draw(rng, kind, colour, background))
    return prompts


def _draw_single(rng: Random, kind: str, colour: str, background: str) -> HeldOutPrompt:
    size = rng.choice((None, None, "small", "big"))
    place = rng.choice((None, None, *PLACES))
    wanted = WantedShape(kind, colour, size, place)
    noun = _noun_phrase(wanted)
    where = "" if place is None else f" {_SINGLE_PLACES[place]}"
    ground = _with_article(f"{background} background")
    template = rng.choice(("{o}{n}{w} on {b}", "{o}{n}{w} on {b}", "{o}{b} with {n}{w}"))
    text = template.format(o=rng.choice(_OPENINGS), n=noun, w=where, b=ground)
    return HeldOutPrompt(text, background, (wanted,))


def _draw_pair(rng: Random, kind: str, colour: str, background: str) -> HeldOutPrompt:
    others = [other for other in COLOURS if other not in (colour, background)]
    template, first_place, second_place = rng.choice(_PAIRS)
    shapes = (
        WantedShape(kind, colour, None, first_place),
        WantedShape(rng.choice(KINDS), rng.choice(others), None, second_place),
    )
    nouns = map(_noun_phrase, shapes)
    text = template.format(*nouns, b=_with_article(f"{background} background"))
    return HeldOutPrompt(text, background, shapes)


def _noun_phrase(shape: WantedShape) -> str:
    words = (shape.size, shape.colour, shape.kind)
    return _with_article(" ".join(word for word in words if word is not None))


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
