"""JSON on request: an object from named values or from a sentence, or a list."""

import json
from random import Random
from typing import Any

from demos.chat_training.example import Turn
from demos.chat_training.topics import words
from demos.chat_training.topics.tool_values import spoken

_OBJECT = (
    "Give me a JSON object with {0}.",
    "Write a JSON object with {0}.",
    "Return JSON with {0}.",
    "Make a JSON object with {0}.",
    "Answer in JSON with {0}.",
    "I need a JSON object with {0}.",
    "Create JSON with {0}",
    "Reply with a JSON object that has {0}.",
    "Show me JSON with {0}.",
)
_EXTRACT = (
    "Extract {k} as JSON: {s}",
    "{s} Give me {k} as JSON.",
    "Turn this into JSON with the keys {k}: {s}",
    "Read the text and return JSON with {k}. Text: {s}",
)
_LIST = ("Give me a JSON list with {0}.", "Write a JSON array of {0}.", "Put {0} into a JSON list.")


def _string_value(rng: Random, key: str) -> str:
    makers = {"name": words.person, "city": words.place, "title": words.phrase}
    if key in ("colour", "color"):
        return rng.choice(words.COLOURS)
    if key == "animal":
        return rng.choice(words.ANIMALS)
    return makers.get(key, words.word)(rng)


def _pair(rng: Random) -> tuple[str, Any]:
    roll = rng.random()
    if roll < 0.15:
        return words.made_up(rng), rng.choice((words.word(rng), rng.randint(0, 999)))
    if roll < 0.5:
        return rng.choice(words.JSON_NUMBERS), rng.randint(0, rng.choice((20, 100, 3000)))
    if roll < 0.56:
        return rng.choice(("active", "open", "ready")), rng.choice((True, False))
    key = rng.choice(words.JSON_STRINGS)
    return key, _string_value(rng, key)


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _turn(prompt: str, value: Any) -> Turn:
    text = json.dumps(value, ensure_ascii=False)
    reasoning = "The user wants JSON. I write it with no other text."
    return Turn("json", prompt, text, "", reasoning, expect=(text,), grade="json")


def _named_values(rng: Random) -> Turn:
    pairs = dict(_pair(rng) for _ in range(rng.choice((1, 2, 2, 3))))
    listed = _joined([f"{key} {spoken(value)}" for key, value in pairs.items()])
    return _turn(rng.choice(_OBJECT).format(listed), pairs)


def _from_sentence(rng: Random) -> Turn:
    name, city, age = words.person(rng), words.place(rng), rng.randint(4, 90)
    sentence, value = rng.choice(
        (
            (f"{name} lives in {city}.", {"name": name, "city": city}),
            (f"{name} is {age} years old.", {"name": name, "age": age}),
            (
                f"{name} is {age} years old and lives in {city}.",
                {"name": name, "age": age, "city": city},
            ),
        )
    )
    return _turn(rng.choice(_EXTRACT).format(k=", ".join(value), s=sentence), value)


def _listing(rng: Random) -> Turn:
    items = [words.word(rng) for _ in range(rng.randint(2, 4))]
    return _turn(rng.choice(_LIST).format(_joined(items)), items)


def draw(rng: Random) -> Turn:
    return rng.choices((_named_values, _from_sentence, _listing), (60, 28, 12))[0](rng)
