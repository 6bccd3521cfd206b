"""Colours, capitals, opposites, animals, days and months."""

from collections.abc import Callable
from random import Random
from typing import Any

from demos.chat_training.example import Turn, dress
from demos.chat_training.topics.tables import read_table
from demos.chat_training.topics.words import DAYS, MONTHS, a

_TABLES: dict[str, Any] = read_table("facts")
_ASK: dict[str, list[str]] = _TABLES["ask"]

Fact = tuple[str, str, str]  # question, answer, the answer in a word


def _row(rng: Random, table: str) -> tuple[str, Any]:
    row: tuple[str, Any] = rng.choice(tuple(_TABLES[table].items()))
    return row


def _ask(rng: Random, kind: str, *values: str, **named: str) -> str:
    return rng.choice(_ASK[kind]).format(*values, **named)


def _colour(rng: Random) -> Fact:
    thing, colour = _row(rng, "colour_of")
    prompt = _ask(rng, "colour", c=rng.choice(("colour", "color")), t=thing)
    return prompt, f"{thing[0].upper()}{thing[1:]} is {colour}.", colour


def _capital(rng: Random) -> Fact:
    country, city = _row(rng, "capital_of")
    return _ask(rng, "capital", country), f"The capital of {country} is {city}.", city


def _country(rng: Random) -> Fact:
    country, city = _row(rng, "capital_of")
    return _ask(rng, "country", city), f"{city} is the capital of {country}.", country


def _opposite(rng: Random) -> Fact:
    first, second = rng.sample(rng.choice(_TABLES["opposites"]), 2)
    return _ask(rng, "opposite", first), f"The opposite of {first} is {second}.", second


def _sound(rng: Random) -> Fact:
    animal, sound = _row(rng, "sound_of")
    return _ask(rng, "sound", a(animal)), f"{a(animal).capitalize()} says {sound}.", sound


def _legs(rng: Random) -> Fact:
    animal, legs = _row(rng, "legs_of")
    return _ask(rng, "legs", a(animal)), f"{a(animal).capitalize()} has {legs} legs.", str(legs)


def _young(rng: Random) -> Fact:
    animal, young = _row(rng, "young_of")
    return _ask(rng, "young", animal), f"A young {animal} is called {a(young)}.", young


def _calendar(rng: Random) -> Fact:
    names, kind = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    here = rng.randrange(len(names))
    step, side = rng.choice(((1, "after"), (-1, "before")))
    there = names[(here + step) % len(names)]
    prompt = _ask(rng, "calendar", k=kind, s=side, n=names[here])
    return prompt, f"{there} comes {side} {names[here]}.", there


def _mixture(rng: Random) -> Fact:
    *parts, result = rng.choice(_TABLES["mixtures"])
    first, second = rng.sample(parts, 2)
    prompt = _ask(rng, "mixture", first, second)
    answer = f"{first.capitalize()} and {second} make {result}."
    return prompt[0].upper() + prompt[1:], answer, result


def _listed(rng: Random) -> Fact:
    """A question that is only asked in one way."""
    row = rng.choice(_TABLES["counts"] if rng.random() < 0.45 else _TABLES["others"])
    return row["ask"], row["answer"], row["short"]


_KINDS: tuple[tuple[Callable[[Random], Fact], int], ...] = (
    (_colour, 20),
    (_capital, 16),
    (_country, 5),
    (_opposite, 14),
    (_sound, 5),
    (_legs, 5),
    (_young, 5),
    (_calendar, 12),
    (_mixture, 4),
    (_listed, 15),
)


def draw(rng: Random) -> Turn:
    kinds, weights = zip(*_KINDS, strict=True)
    prompt, answer, short = rng.choices(kinds, weights)[0](rng)
    # A list is shorter without its "and", so the short answer is not always a part of the long one.
    expect = (short,) if short and short in answer else (answer,)
    reasoning = f"I know this one. {answer}"
    return Turn("facts", dress(rng, prompt), answer, short, reasoning, expect=expect)
