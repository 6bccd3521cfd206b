"""Turns that refer back: something the user says about themselves, and a later question on it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demos.chat_training.example import Turn
from demos.chat_training.topics import words
from demos.chat_training.topics.tables import read_table

_KINDS = read_table("memory")
_VALUES: dict[str, Callable[[Random], str]] = {
    "colour": lambda rng: rng.choice(words.COLOURS),
    "food": lambda rng: rng.choice(words.FOODS),
    "hobby": lambda rng: rng.choice(words.HOBBIES),
    "job": lambda rng: rng.choice(words.JOBS),
    "long": lambda rng: str(rng.randint(10, 99999)),
    "number": lambda rng: str(rng.randint(5, 90)),
    "person": words.person,
    "place": words.place,
    "word": words.word,
}
_UNKNOWN = (
    (("What is my name?", "Do you know my name?"), "your name"),
    (("What is my favourite colour?", "Which colour do I like?"), "your favourite colour"),
    (("Where do I live?", "Do you know where I live?"), "where you live"),
    (("How old am I?", "Do you know my age?"), "your age"),
)


@dataclass(frozen=True, slots=True)
class Memory:
    """A statement, and a question that only the statement answers."""

    kind: str
    statement: Turn
    question: Turn


def draw(rng: Random) -> Memory:
    entry = rng.choice(_KINDS)
    value = _VALUES[entry["kind"]](rng)
    slots = {"v": value, "V": value[0].upper() + value[1:], "a": words.a(value)}
    said = rng.choice(entry["statements"]).format(**slots)
    asked = rng.choice(entry["questions"])
    reply = entry["reply"].format(**slots)
    noted = "The user tells me something. I take note of it."
    statement = Turn("memory", said, reply, reply, noted)
    answer = entry["answer"].format(**slots)
    remembered = f"The user said: {said}"
    question = Turn("memory", asked, answer, value, remembered, key=f"{said} {asked}")
    return Memory(entry["answer"], statement, question)


def draw_several(rng: Random, count: int) -> list[Memory]:
    """Memories of different kinds, so that no answer is ambiguous."""
    chosen: dict[str, Memory] = {}
    while len(chosen) < count:
        memory = draw(rng)
        chosen.setdefault(memory.kind, memory)
    return list(chosen.values())


def unasked(rng: Random) -> Turn:
    """A question about something that the user has not said."""
    asks, what = rng.choice(_UNKNOWN)
    prompt = rng.choice(asks)
    return Turn(
        "memory",
        prompt,
        f"You have not told me {what} yet.",
        "I do not know.",
        "The user has not said this.",
        key=f"unasked {prompt}",
        expect=("not told me",),
    )
