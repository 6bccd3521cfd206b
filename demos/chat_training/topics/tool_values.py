"""Values for tool parameters: drawn by kind, and written as a person would write them."""

from random import Random
from typing import Any

from demos.chat_training.topics import words

CHOICES = {
    "unit": ("celsius", "fahrenheit"),
    "language": ("French", "German", "Spanish", "Italian", "Chinese", "Dutch", "Polish"),
    "currency": ("EUR", "USD", "GBP", "JPY", "CHF", "SEK"),
    "cuisine": ("Italian", "Chinese", "Indian", "Greek", "Thai", "Mexican"),
    "room": ("kitchen", "bedroom", "bathroom", "garage", "office", "hall", "cellar"),
    "size": ("small", "medium", "large"),
    "level": ("low", "middle", "high"),
    "mode": ("fast", "slow", "quiet"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}
JSON_TYPE = {
    "small": "integer",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "switch": "boolean",
}
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def draw_value(rng: Random, kind: str) -> Any:
    """A value of one of the kinds of the catalogue and of the random tools."""
    if kind in CHOICES:
        return rng.choice(CHOICES[kind])
    if kind in ("place", "person", "word", "phrase"):
        return getattr(words, kind)(rng)
    if kind == "small":
        return rng.randint(1, 30)
    if kind == "integer":
        return rng.randint(0, rng.choice((20, 100, 1000, 9999)))
    if kind == "number":
        return rng.randint(0, 400) / rng.choice((2, 4, 10))
    if kind in ("boolean", "switch"):
        return rng.random() < 0.5
    return _code(rng, kind)


def _code(rng: Random, kind: str) -> str:
    if kind == "symbol":
        return "".join(rng.choice(_LETTERS) for _ in range(rng.choice((3, 4))))
    if kind == "time":
        return f"{rng.randint(0, 23):02}:{rng.choice((0, 15, 30, 45, rng.randint(0, 59))):02}"
    if kind == "file":
        return words.made_up(rng) + rng.choice((".txt", ".json", ".md", ".csv"))
    if kind == "date":
        return f"20{rng.randint(20, 30)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    if kind == "code":
        head = "".join(rng.choice(_LETTERS) for _ in range(rng.randint(0, 2)))
        return f"{head}{rng.choice(('', '-'))}{rng.randint(10, 99999)}".lstrip("-")
    raise ValueError(f"kind is {kind!r}, which no parameter may have")


def spoken(value: Any, kind: str = "") -> str:
    """The value as it stands in a sentence; a switch is on or off."""
    if kind == "switch":
        return "on" if value else "off"
    return str(value).lower() if isinstance(value, bool) else str(value)
