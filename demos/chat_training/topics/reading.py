"""Copying and reading: repeat a text, answer from a passage, pick from a list."""

from random import Random

from demos.chat_training.example import Turn
from demos.chat_training.topics.words import (
    COLOURS,
    FOODS,
    NAMES,
    OBJECTS,
    made_up,
    person,
    phrase,
    place,
    word,
)

_REPEAT = (
    "Repeat after me: {0}",
    "Say this: {0}",
    "Please repeat: {0}",
    "Repeat: {0}",
    "Echo this text: {0}",
    "Copy this: {0}",
    "Say exactly: {0}",
    'Repeat the words "{0}"',
)


def _repeat(rng: Random) -> Turn:
    text = " ".join(rng.choice((word, person, phrase))(rng) for _ in range(rng.randint(1, 4)))
    prompt = rng.choice(_REPEAT).format(text)
    return Turn("reading", prompt, text, "", f"I repeat the text: {text}")


def _owner(rng: Random) -> Turn:
    """Two or three people and their things; a question on one of them."""
    count = rng.choice((2, 2, 3))
    people = [person(rng) for _ in range(count)]
    if len(set(people)) < count:
        return _owner(rng)
    things, colours = rng.sample(OBJECTS, count), rng.sample(COLOURS, count)
    facts = [f"{people[i]} has a {colours[i]} {things[i]}." for i in range(count)]
    i = rng.randrange(count)
    question, answer, short = rng.choice(
        (
            (f"Who has the {things[i]}?", f"{people[i]} has the {things[i]}.", people[i]),
            (f"What does {people[i]} have?", facts[i], things[i]),
            (f"What colour is the {things[i]}?", f"The {things[i]} is {colours[i]}.", colours[i]),
        )
    )
    form = rng.choice(("{0} {1}", "{0}\n{1}", "Read this: {0} {1}"))
    prompt = form.format(" ".join(facts), question)
    return Turn("reading", prompt, answer, short, f"The text says: {facts[i]}")


def _home(rng: Random) -> Turn:
    people, cities = [person(rng), person(rng)], [place(rng), place(rng)]
    if people[0] == people[1] or cities[0] == cities[1]:
        return _home(rng)
    facts = [f"{who} lives in {city}." for who, city in zip(people, cities, strict=True)]
    i = rng.randrange(2)
    question, short = rng.choice(
        (
            (f"Where does {people[i]} live?", cities[i]),
            (f"Who lives in {cities[i]}?", people[i]),
        )
    )
    prompt = f"{' '.join(facts)} {question}"
    return Turn("reading", prompt, facts[i], short, f"The text says: {facts[i]}")


def _list_item(rng: Random) -> Turn:
    """First, last or number of the words of a list."""
    items = [word(rng) for _ in range(rng.randint(3, 5))]
    listed, size = ", ".join(items), len(items)
    prompt, answer, short = rng.choice(
        (
            ("What is the first word of this list", f"The first word is {items[0]}.", items[0]),
            ("What is the last word of this list", f"The last word is {items[-1]}.", items[-1]),
            ("How many words are in this list", f"There are {size} words.", str(size)),
        )
    )
    return Turn("reading", f"{prompt}: {listed}?", answer, short, f"The list is {listed}.")


def _member(rng: Random) -> Turn:
    """Which of these is a colour, a food or a name."""
    kind, members = rng.choice((("a colour", COLOURS), ("a food", FOODS), ("a name", NAMES)))
    wanted = rng.choice(members)
    items = [wanted, rng.choice(OBJECTS[:20]), made_up(rng)]
    rng.shuffle(items)
    prompt = f"Which of these is {kind}: {items[0]}, {items[1]} or {items[2]}?"
    answer = f"{wanted[0].upper()}{wanted[1:]} is {kind}."
    return Turn("reading", prompt, answer, wanted, f"{wanted} is {kind}.", expect=(answer,))


def draw(rng: Random) -> Turn:
    kinds = (_repeat, _owner, _home, _list_item, _member)
    return rng.choices(kinds, (35, 28, 15, 15, 7))[0](rng)
