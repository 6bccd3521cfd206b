"""Tools with schemas, and requests that call them: daily ones and ones with random names."""

from dataclasses import dataclass
from random import Random
from typing import Any

from demos.chat_training.example import Tool
from demos.chat_training.topics import words
from demos.chat_training.topics.tables import read_table
from demos.chat_training.topics.tool_values import CHOICES, JSON_TYPE, draw_value, spoken

# Tools of daily life. Each parameter has several names; `{0}`, `{1}` in a request stand for the
# parameters' values in order, and a parameter that a request does not mention is optional. The
# unseen kinds are never in training text: they tell what a new tool can hope for.
_DAILY: dict[str, Any] = read_table("tools")
_STRING_KINDS = (
    "place",
    "person",
    "word",
    "word",
    "phrase",
    "code",
    "time",
    "date",
    "file",
    "symbol",
)
_CLAUSES = (
    "{k} {v}",
    "{k} {v}",
    "{k} = {v}",
    "{k}: {v}",
    "{k} set to {v}",
    '{k} "{v}"',
    "the {k} {v}",
)
_ONLY_VALUE = ("for {0}", "{0}", "with {0}", '"{0}"')
_ASK = ("{0}.", "{0}.", "{0}", "Please {0}.", "Can you {0}?", "I want to {0}.", "Could you {0}?")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool, one request that needs it, and the arguments that the request gives."""

    tool: Tool
    request: str
    arguments: dict[str, Any]
    subject: str

    @property
    def name(self) -> str:
        return str(self.tool["function"]["name"])


def _schema(
    rng: Random, name: str, description: str, properties: dict[str, Any], required: list[str]
) -> Tool:
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required or rng.random() < 0.5:
        parameters["required"] = required
    if rng.random() < 0.08:
        parameters["additionalProperties"] = False
    function: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
    if rng.random() < 0.04:
        del function["description"]
    return {"type": "function", "function": function}


def _property(rng: Random, kind: str, description: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": JSON_TYPE.get(kind, "string")}
    if kind in ("unit", "size", "level", "mode") or (kind in CHOICES and rng.random() < 0.3):
        entry["enum"] = list(CHOICES[kind])
    if description and rng.random() < 0.75:
        entry["description"] = description + rng.choice(("", "."))
    if rng.random() < 0.1:
        entry = dict(reversed(entry.items()))
    return entry


def _daily_name(rng: Random, names: list[str]) -> str:
    """One of the usual names, often with something added, at times a word that says nothing."""
    name, roll = rng.choice(names), rng.random()
    if roll < 0.1:
        return words.made_up(rng)
    if roll > 0.75:
        added = rng.choice(("{0}_{1}", "{1}_{0}", "{0}{2}"))
        return added.format(name, words.made_up(rng, 2), rng.randint(1, 9))
    return name


def daily(rng: Random, unseen: bool = False) -> Call:
    """A tool of daily life; the names of the function and its parameters vary."""
    entry = rng.choice(_DAILY["unseen" if unseen else "trained"])
    ask = rng.choice(entry["ask"])
    properties, arguments, values = {}, {}, []
    for i, parameter in enumerate(entry["parameters"]):
        key = rng.choice(parameter["names"]) if rng.random() < 0.9 else words.made_up(rng)
        value = draw_value(rng, parameter["kind"])
        properties[key] = _property(rng, parameter["kind"], parameter["description"])
        values.append(spoken(value, parameter["kind"]))
        if f"{{{i}}}" in ask:
            arguments[key] = value
    name, description = _daily_name(rng, entry["names"]), entry["description"]
    tool = _schema(rng, name, description, properties, list(arguments))
    return Call(tool, ask.format(*values), arguments, description.rstrip(".").lower())


def _random_name(rng: Random, verb: str, noun: str) -> str:
    """The function's name in one of the usual styles, or one that says nothing."""
    if rng.random() < 0.1:
        return words.made_up(rng)
    style = rng.randrange(6)
    if style == 0:
        return f"{verb}{noun.capitalize()}"
    if style == 1:
        return f"{noun}_{verb}"
    if style == 2:
        return f"{verb}_{rng.choice(('the', 'my', 'new', 'one'))}_{noun}"
    return f"{verb}_{noun}"


def _random_parameter(rng: Random) -> tuple[str, str]:
    key = rng.choice(words.PARAMETERS)
    if rng.random() < 0.2:
        key = words.made_up(rng)
    elif rng.random() < 0.12:
        key = f"{rng.choice(words.PARAMETERS)}_{key}"
    kind = rng.choices(("string", "integer", "number", "boolean"), (60, 25, 7, 8))[0]
    return key, rng.choice(_STRING_KINDS) if kind == "string" else kind


def _clause(rng: Random, said: list[tuple[str, str]]) -> str:
    """How the request names its values."""
    if not said:
        return ""
    if len(said) == 1 and rng.random() < 0.5:
        return " " + rng.choice(_ONLY_VALUE).format(said[0][1])
    form = rng.choice(_CLAUSES)
    parts = [
        form.format(k=key.replace("_", " ") if rng.random() < 0.7 else key, v=value)
        for key, value in said
    ]
    joined = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return rng.choice((" with ", " with ", ", ", " using ")) + joined


def random_tool(rng: Random) -> Call:
    """A tool that nobody has: verb, noun, parameters and values at random."""
    verb = rng.choice(words.VERBS) if rng.random() < 0.75 else words.made_up(rng, 2)
    noun = rng.choice(words.NOUNS) if rng.random() < 0.65 else words.made_up(rng)
    properties: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for _ in range(rng.choices((0, 1, 2, 3), (8, 42, 35, 15))[0]):
        key, kind = _random_parameter(rng)
        said_key = key.replace("_", " ")
        about = rng.choice((f"The {said_key}", f"{said_key.capitalize()} of the {noun}", ""))
        properties[key] = _property(rng, kind, about)
        arguments.pop(key, None)
        if rng.random() < 0.85:
            arguments[key] = draw_value(rng, kind)
    said = [(key, spoken(value)) for key, value in arguments.items()]
    if rng.random() < 0.3:
        said.reverse()
    described = noun
    if rng.random() < 0.15:
        key = rng.choice(("size", "level", "mode"))
        properties[key] = _property(rng, key, "")
        arguments[key] = draw_value(rng, key)
        described = f"{arguments[key]} {noun}"
        said = [pair for pair in said if pair[0] != key]
    request = rng.choice(("{0} the {1}", "{0} a {1}", "{0} {1}")).format(verb, described)
    request = rng.choice(_ASK).format(request + _clause(rng, said))
    description = rng.choice(("{0} a {1}.", "{0} the {1}", "{0} {1}s.")).format(verb.title(), noun)
    name = _random_name(rng, verb, noun)
    tool = _schema(rng, name, description, properties, list(arguments))
    return Call(tool, request[0].upper() + request[1:], arguments, f"{verb} {noun}")


def draw(rng: Random) -> Call:
    return daily(rng) if rng.random() < 0.5 else random_tool(rng)
