"""Greetings, thanks, goodbyes, who the model is, and what it cannot do."""

from random import Random

from demos.chat_training.example import Turn, dress
from demos.chat_training.topics import words
from demos.chat_training.topics.tables import read_table

_TABLES = read_table("smalltalk")
UNKNOWN = "I do not know that. I am only a small demo model."


def _unknown(rng: Random) -> Turn:
    """A question that a model of this size should not try to answer."""
    prompt = rng.choice(_TABLES["unknown"]).format(
        n=rng.choice(words.NAMES),
        c=rng.choice(words.CITIES),
        o=rng.choice(words.OBJECTS),
        p=words.phrase(rng),
        y=rng.randint(10, 99),
    )
    reasoning = "I have no way to know this."
    return Turn("chat", dress(rng, prompt), UNKNOWN, "I do not know.", reasoning, expect=(UNKNOWN,))


def _greet(rng: Random) -> Turn:
    name = words.person(rng)
    prompt, answer = rng.choice(_TABLES["greet"]).format(n=name), f"Hello, {name}!"
    return Turn("chat", prompt, answer, answer, f"I greet {name}.", expect=(answer,))


def draw(rng: Random) -> Turn:
    roll = rng.random()
    if roll < 0.25:
        return _unknown(rng)
    if roll < 0.29:
        return _greet(rng)
    entry = rng.choice(_TABLES["talk"])
    return Turn(
        "chat",
        rng.choice(entry["ask"]),
        entry["answer"],
        entry["short"],
        reasoning="This is small talk. I answer in a friendly way.",
        expect=(entry["answer"],),
    )
