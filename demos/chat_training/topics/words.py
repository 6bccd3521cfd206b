"""Word lists, and made-up words that keep the model from learning the lists by heart."""

from random import Random

from demos.chat_training.topics.tables import read_table

_LISTS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split()) for name, words in read_table("words").items()
}
NAMES = _LISTS["names"]
CITIES = _LISTS["cities"]
COLOURS = _LISTS["colours"]
ANIMALS = _LISTS["animals"]
FOODS = _LISTS["foods"]
OBJECTS = _LISTS["objects"]
HOBBIES = _LISTS["hobbies"]
JOBS = _LISTS["jobs"]
DAYS = _LISTS["days"]
MONTHS = _LISTS["months"]
NUMBER_WORDS = _LISTS["number_words"]
# For tools: verbs, nouns, names of parameters, keys of results. For JSON: keys by type.
VERBS = _LISTS["verbs"]
NOUNS = _LISTS["nouns"]
PARAMETERS = _LISTS["parameters"]
RESULTS = _LISTS["results"]
JSON_STRINGS = _LISTS["json_strings"]
JSON_NUMBERS = _LISTS["json_numbers"]

_ONSETS = _LISTS["onsets"]
_VOWELS = _LISTS["vowels"]
_CODAS = ("", "", "", "n", "r", "l", "s", "m", "t", "x", "nd", "rk")


def made_up(rng: Random, syllables: int | None = None) -> str:
    """A word that no dictionary has, of two or three syllables unless told."""
    count = syllables or rng.choice((2, 2, 2, 3))
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)
    )


def person(rng: Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.5 else made_up(rng, 2).capitalize()


def place(rng: Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.6 else made_up(rng).capitalize()


def word(rng: Random) -> str:
    """A plain noun or a made-up word."""
    if rng.random() < 0.4:
        return made_up(rng)
    return rng.choice(rng.choice((ANIMALS, FOODS, OBJECTS, COLOURS)))


def phrase(rng: Random) -> str:
    """Two to four words, as a title or a note has."""
    return " ".join(word(rng) for _ in range(rng.choice((2, 2, 3, 4))))


def a(noun: str) -> str:
    """The noun with its article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
