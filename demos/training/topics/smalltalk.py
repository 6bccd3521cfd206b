"""Greetings, thanks, goodbyes, who the model is, and what it cannot do."""

from random import Random

from demos.training.example import Turn, dress
from demos.training.topics import words
from demos.training.topics.tables import read_table

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


def draw(rng: Random) -> Turn:
    if rng.random() < 0.22:
        return _unknown(rng)
    entry = rng.choice(_TABLES["talk"])
    return Turn(
        "chat",
        rng.choice(entry["ask"]),
        entry["answer"],
        entry["short"],
        reasoning="This is small talk. I answer in a friendly way.",
        expect=(entry["answer"],),
    )
