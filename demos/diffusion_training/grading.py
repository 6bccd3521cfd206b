"""Holds what a picture shows against what its prompt said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from demos.diffusion_training.classify import Findings
from demos.diffusion_training.prompts import HeldOutPrompt

BACKGROUND, NUMBER, COLOUR = "background colour", "number of shapes", "shape colour"
KIND, SIZE, PLACE = "shape kind", "size", "place"
ATTRIBUTES = (BACKGROUND, NUMBER, COLOUR, KIND, SIZE, PLACE)

Grade = dict[str, bool]


def grade(prompt: HeldOutPrompt, found: Findings) -> Grade:
    """Which of the attributes that a prompt names are right, in all of its shapes.

    Shapes are told apart by their colours: a shape whose colour is missing has nothing right.
    """
    by_colour = {shape.colour: shape for shape in found.shapes}
    marks: dict[str, list[bool]] = defaultdict(list)
    for wanted in prompt.shapes:
        shape = by_colour.get(wanted.colour)
        marks[COLOUR].append(shape is not None)
        marks[KIND].append(shape is not None and shape.kind == wanted.kind)
        if wanted.size is not None:
            marks[SIZE].append(shape is not None and shape.size == wanted.size)
        if wanted.place is not None:
            marks[PLACE].append(shape is not None and shape.place == wanted.place)
    return {
        BACKGROUND: found.background == prompt.background,
        NUMBER: len(found.shapes) == len(prompt.shapes),
        **{attribute: all(values) for attribute, values in marks.items()},
    }


def shares(grades: Iterable[Grade]) -> dict[str, tuple[int, int]]:
    """For each attribute, how often it was right, and how often it was asked for."""
    tally: dict[str, list[bool]] = defaultdict(list)
    for one in grades:
        for attribute, is_right in one.items():
            tally[attribute].append(is_right)
    return {
        attribute: (sum(tally[attribute]), len(tally[attribute]))
        for attribute in ATTRIBUTES
        if attribute in tally
    }
