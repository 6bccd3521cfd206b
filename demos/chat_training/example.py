"""Turns, which topics produce; examples, which training and evaluation read; and the split."""

import zlib
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

Message = dict[str, Any]
Tool = dict[str, Any]
Grade = Literal["contains", "call", "json"]

HELD_OUT_ONE_IN = 20
SPLIT_SALT = "demo-chat:"


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    `short` is the answer in a word or two, for prompts that ask for it; `reasoning` is what a
    think block says; `key` is what the split goes by where the question alone does not hold the
    whole problem ("What is my name?"), else the question.
    """

    category: str
    prompt: str
    answer: str
    short: str = ""
    reasoning: str = ""
    key: str = ""
    expect: tuple[str, ...] = ()
    grade: Grade = "contains"

    @property
    def split_key(self) -> str:
        return self.key or self.prompt

    @property
    def expected(self) -> tuple[str, ...]:
        """Strings that a right answer holds."""
        return self.expect or ((self.short,) if self.short else (self.answer,))


@dataclass(frozen=True, slots=True)
class Example:
    """A whole conversation that ends with the assistant's answer, or a plain text."""

    category: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    thinking: bool = False
    expect: tuple[str, ...] = ()
    grade: Grade = "contains"
    text: str = ""
    keys: tuple[str, ...] = field(default=())


def is_held_out(key: str) -> bool:
    """Whether a prompt (or a tool's name) is kept for evaluation; letter case does not count."""
    return zlib.crc32((SPLIT_SALT + key.lower()).encode()) % HELD_OUT_ONE_IN == 0


_BEFORE = ("Hi!", "Hello.", "Hey,", "Please tell me:", "Quick question:", "Tell me,", "So,")
_AFTER = (" Thanks.", " Please.", " Thank you!", " I want to know.", " Can you tell me?")


def dress(rng: Random, prompt: str) -> str:
    """Say the same a little differently, as people do: a greeting, a please, a missing mark."""
    if rng.random() < 0.6:
        return prompt
    lower = prompt if prompt.startswith("I ") else prompt[0].lower() + prompt[1:]
    choice = rng.randrange(6)
    if choice == 0:
        before = rng.choice(_BEFORE)
        return f"{before} {lower if before.endswith(',') else prompt}"
    if choice == 1:
        return prompt + rng.choice(_AFTER)
    if choice == 2:
        return lower
    if choice == 3:
        return prompt.rstrip("?.!")
    if choice == 4:
        return lower.rstrip("?.!")
    return f"{rng.choice(('Hi!', 'Hello.'))} {prompt}{rng.choice(_AFTER)}"
