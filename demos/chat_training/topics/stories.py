"""Stories of two or three sentences, and plain texts to complete."""

from random import Random

from demos.chat_training.example import Turn, dress
from demos.chat_training.topics import enginery, facts
from demos.chat_training.topics.tables import read_table
from demos.chat_training.topics.words import ANIMALS, COLOURS, FOODS, JOBS, NAMES, OBJECTS, a

_TABLES = read_table("stories")


def _story(rng: Random, hero: str, kind: str) -> str:
    event, ending = rng.choice(_TABLES["events"])
    slots = {
        "o": f"{a(rng.choice(COLOURS[:8]))} {rng.choice(OBJECTS)}",
        "f": rng.choice([name for name in NAMES[:30] if name != hero]),
        "d": rng.choice(FOODS),
    }
    return (
        f"{hero} was {a(kind)} who lived {rng.choice(_TABLES['places'])}. "
        f"One day {hero} {event.format(**slots)}. Then {hero} {ending.format(**slots)}."
    )


def draw(rng: Random) -> Turn:
    kind, hero = rng.choice(ANIMALS + JOBS), rng.choice(NAMES)
    ask, expect = rng.choices(
        (
            ("ask_named", (kind, hero)),
            ("ask", (kind, "One day")),
            ("ask_any", ("One day",)),
        ),
        (36, 52, 12),
    )[0]
    prompt = dress(rng, rng.choice(_TABLES[ask]).format(k=a(kind), h=hero))
    story = _story(rng, hero, kind)
    return Turn("story", prompt, story, "", "I make up a little story.", expect=expect)


def plain_text(rng: Random) -> str:
    """A text without any chat, for the completions route."""
    hero, kind = rng.choice(NAMES), rng.choice(ANIMALS + JOBS)
    form = rng.randrange(4)
    if form == 0:
        start = rng.choice(
            ("Once upon a time there was a story.", "Once upon a time,", "Long ago,")
        )
        return f"{start} {_story(rng, hero, kind)}"
    if form == 1:
        return " ".join(entry["answer"] for entry in rng.sample(enginery.FAQ, rng.randint(2, 4)))
    if form == 2:
        return " ".join(facts.draw(rng).answer for _ in range(rng.randint(2, 5)))
    return _story(rng, hero, kind)
