"""System prompts: who the assistant is and how it must answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from demos.chat_training.example import Turn
from demos.chat_training.topics import words
from demos.chat_training.topics.tables import read_table

_TABLES: dict[str, Any] = read_table("style")
NEUTRAL = tuple(_TABLES["neutral"])
LONGEST_UPPER_CASE = 45


@dataclass(frozen=True, slots=True)
class Styled:
    """A system prompt and the turn as it must then be."""

    system: str
    turn: Turn


def _changed(turn: Turn, answer: str) -> Turn:
    return replace(
        turn, answer=answer, expect=(answer,), key=turn.split_key, category="system prompt"
    )


def _persona(rng: Random) -> Styled:
    """A name and a role, and a question about either."""
    name, table = words.person(rng), _TABLES["persona"]
    role = rng.choice(_TABLES["roles"]).format(c=words.place(rng), a=rng.choice(words.ANIMALS))
    system = rng.choice(table["systems"]).format(n=name, r=role)
    who = f"I am {name}, {role}." if role in system else f"I am {name}."
    asked, answer = rng.choice(
        (
            ("who", who),
            ("name", f"My name is {name}."),
            ("greeting", f"Hello! I am {name}. How can I help you?"),
        )
    )
    prompt = rng.choice(table[asked])
    reasoning = f"The system prompt says that I am {name}."
    key = f"{system} {prompt}"
    turn = Turn("system prompt", prompt, answer, name, reasoning, key, expect=(answer,))
    return Styled(system, turn)


def _known_value(rng: Random, kind: str) -> str:
    if kind == "hour":
        return f"{rng.randint(6, 11)}:{rng.choice(('00', '15', '30'))}"
    if kind == "number":
        return str(rng.randint(1, 999))
    makers = {"made_up": words.made_up, "person": words.person, "place": words.place}
    return makers[kind](rng)


def _known_fact(rng: Random) -> Styled:
    """Something that only the system prompt knows."""
    table = _TABLES["known"]
    what, kind = rng.choice(table["things"])
    value = _known_value(rng, kind)
    system = rng.choice(table["systems"]).format(w=what, v=value)
    prompt = rng.choice(table["questions"]).format(w=what)
    answer = f"The {what} is {value}."
    reasoning = f"The system prompt says: the {what} is {value}."
    turn = Turn("system prompt", prompt, answer, value, reasoning, key=f"{system} {prompt}")
    return Styled(system, turn)


def _short(rng: Random, turn: Turn) -> Styled | None:
    if not turn.short:
        return None
    return Styled(rng.choice(_TABLES["short"]), replace(_changed(turn, turn.short), short=""))


def _upper(rng: Random, turn: Turn) -> Styled | None:
    if len(turn.answer) > LONGEST_UPPER_CASE:
        return None
    return Styled(rng.choice(_TABLES["upper"]), _changed(turn, turn.answer.upper()))


def _lower(rng: Random, turn: Turn) -> Styled | None:
    return Styled(rng.choice(_TABLES["lower"]), _changed(turn, turn.answer.lower()))


def _marked(rng: Random, turn: Turn) -> Styled | None:
    """Begin or end every answer with given words, or say nothing but them."""
    mark = rng.choice(
        (
            f"{words.word(rng).capitalize()}!",
            "Arr!",
            "Sir,",
            "Beep.",
            f"{words.phrase(rng).capitalize()}.",
            f"Dear {words.person(rng)},",
        )
    )
    where, answer = rng.choice(
        (
            ("begin", f"{mark} {turn.answer}"),
            ("end", f"{turn.answer} {mark}"),
            ("only", mark),
        )
    )
    return Styled(rng.choice(_TABLES[where]).format(mark), _changed(turn, answer))


def _json(rng: Random, turn: Turn) -> Styled | None:
    if not turn.short:
        return None
    key = rng.choice(("answer", "answer", "result", "reply", words.made_up(rng)))
    answer = f'{{"{key}": "{turn.short}"}}'
    return Styled(
        rng.choice(_TABLES["json"]).format(key), replace(_changed(turn, answer), short="")
    )


_MAKERS: tuple[tuple[Callable[[Random, Turn], Styled | None], int], ...] = (
    (_short, 32),
    (_upper, 22),
    (_lower, 12),
    (_marked, 28),
    (_json, 12),
)


def styled(rng: Random, turn: Turn) -> Styled:
    """Put the turn under a system prompt that asks for a form of answer."""
    makers = [maker for maker, _ in _MAKERS]
    weights = [weight for _, weight in _MAKERS]
    while True:
        made = rng.choices(makers, weights)[0](rng, turn)
        if made is None:
            continue
        if rng.random() < 0.3:
            return Styled(f"You are a helpful assistant. {made.system}", made.turn)
        return made


def own_prompt(rng: Random) -> Styled:
    """A system prompt that says who the assistant is, or something to know."""
    return _persona(rng) if rng.random() < 0.65 else _known_fact(rng)
