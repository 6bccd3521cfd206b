"""The mixture: draws training and held-out examples from the topics, short and long."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from demos.chat_training.example import Example, Message, Turn, is_held_out
from demos.chat_training.topics import (
    arithmetic,
    enginery,
    facts,
    memory,
    reading,
    smalltalk,
    stories,
    structured,
    style,
    tool_use,
)
from demos.chat_training.topics.memory import Memory

Skill = Callable[[Random, bool, bool], Example]  # generator, held out, thinking
_TOPICS: tuple[tuple[Callable[[Random], Turn], int], ...] = (
    (arithmetic.draw, 26),
    (facts.draw, 16),
    (enginery.draw, 13),
    (smalltalk.draw, 12),
    (reading.draw, 13),
    (structured.draw, 12),
    (stories.draw, 8),
)
_SKILLS: dict[str, int] = {
    "chat": 26,
    "drill": 14,
    "styled": 15,
    "persona": 6,
    "memory": 6,
    "call": 22,
    "two calls": 6,
    "tool answer": 4,
    "tool dialogue": 3,
    "no tool": 7,
    "missing tool": 6,
    "text": 3,
}
SKILLS = (*_SKILLS, "long")
THINKING_SHARE = 0.25


def draw_turn(rng: Random, held_out: bool, topic: Callable[[Random], Turn] | None = None) -> Turn:
    """A question from any topic (or the given one) on the wanted side of the split."""
    topics, weights = zip(*_TOPICS, strict=True)
    while True:
        turn = (topic or rng.choices(topics, weights)[0])(rng)
        if is_held_out(turn.split_key) == held_out:
            return turn


def messages_of(turns: list[Turn], system: str = "", thinking: bool = False) -> tuple[Message, ...]:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages.append({"role": "user", "content": turn.prompt})
        messages.append({"role": "assistant", "content": turn.answer})
    if thinking:
        messages[-1]["reasoning_content"] = turns[-1].reasoning
    return tuple(messages)


def of_turns(
    turns: list[Turn], system: str = "", thinking: bool = False, category: str = ""
) -> Example:
    """A conversation that is graded by its last turn."""
    last = turns[-1]
    keys = tuple(turn.split_key for turn in turns)
    return Example(
        category or last.category,
        messages_of(turns, system, thinking),
        (),
        thinking,
        last.expected,
        last.grade,
        keys=keys,
    )


def _neutral_system(rng: Random) -> str:
    return rng.choice(style.NEUTRAL) if rng.random() < 0.25 else ""


def chat(
    rng: Random, held_out: bool, thinking: bool, topic: Callable[[Random], Turn] | None = None
) -> Example:
    """One to four turns of any topics; only the last may be held out."""
    turns = [draw_turn(rng, False) for _ in range(rng.choices((0, 1, 2, 3), (62, 20, 10, 8))[0])]
    turns.append(draw_turn(rng, held_out, topic))
    return of_turns(turns, _neutral_system(rng), thinking)


def drill(rng: Random, held_out: bool, thinking: bool) -> Example:
    """Many short questions in a row: the cheapest way to see every sum and fact often."""
    topics = (arithmetic.draw, facts.draw, enginery.draw)
    turns = [
        draw_turn(rng, False, rng.choices(topics, (65, 25, 10))[0])
        for _ in range(rng.randint(6, 16))
    ]
    turns.append(draw_turn(rng, held_out, arithmetic.draw))
    return replace(of_turns(turns, "", thinking), category="arithmetic, after other questions")


def styled(rng: Random, held_out: bool, thinking: bool) -> Example:
    made = style.styled(rng, draw_turn(rng, held_out))
    return of_turns([made.turn], made.system, thinking)


def persona(rng: Random, held_out: bool, thinking: bool) -> Example:
    """A system prompt with a name or a fact, perhaps after some other turns."""
    made = style.own_prompt(rng)
    while is_held_out(made.turn.split_key) != held_out:
        made = style.own_prompt(rng)
    before = [
        draw_turn(rng, False, rng.choice((facts.draw, arithmetic.draw)))
        for _ in range(rng.choice((0, 0, 1, 2)))
    ]
    return of_turns([*before, made.turn], made.system, thinking)


def _remembered(rng: Random, held_out: bool, count: int) -> tuple[list[Memory], Memory]:
    """Memories of training text, and the one to ask for, on the wanted side of the split."""
    while True:
        memories = memory.draw_several(rng, count)
        asked = rng.choice(memories)
        others = [one for one in memories if one is not asked]
        if any(
            is_held_out(one.question.split_key) or is_held_out(one.statement.prompt)
            for one in others
        ):
            continue
        if is_held_out(asked.question.split_key) == held_out and not is_held_out(
            asked.statement.prompt
        ):
            return memories, asked


def remembering(rng: Random, held_out: bool, thinking: bool) -> Example:
    """Something said, turns in between, and the question that refers back to it."""
    if rng.random() < 0.07 and not held_out:
        return of_turns([memory.unasked(rng)], _neutral_system(rng), thinking)
    memories, asked = _remembered(rng, held_out, rng.choice((1, 1, 2, 3)))
    if rng.random() < 0.12:
        at_once = f"{asked.statement.prompt} {asked.question.prompt}"
        turns = [replace(asked.question, prompt=at_once)]
    else:
        between = [draw_turn(rng, False) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        turns = [*(one.statement for one in memories), *between, asked.question]
    return of_turns(turns, _neutral_system(rng), thinking)


def long_chat(rng: Random, held_out: bool, thinking: bool) -> Example:
    """A conversation of up to 2,048 tokens that keeps coming back to what was said at its start."""
    memories, asked = _remembered(rng, held_out, rng.randint(2, 4))
    asked_before = [one for one in memories if one is not asked or not held_out]
    turns = [one.statement for one in memories]
    for _ in range(rng.randint(8, 60)):
        is_question = rng.random() < 0.2
        turns.append(rng.choice(asked_before).question if is_question else draw_turn(rng, False))
    return of_turns([*turns, asked.question], _neutral_system(rng), thinking, "memory, long")


def with_system(rng: Random, example: Example) -> Example:
    """Tools under a system prompt, as many clients send them."""
    if rng.random() < 0.7:
        return example
    system: Message = {"role": "system", "content": rng.choice(style.NEUTRAL)}
    return replace(example, messages=(system, *example.messages))


def _in_conversation(rng: Random, example: Example) -> Example:
    """The request for a tool after a turn or two of chat."""
    if rng.random() < 0.85:
        return example
    before = [draw_turn(rng, False) for _ in range(rng.choice((1, 2)))]
    return replace(
        example,
        messages=(*messages_of(before), *example.messages),
        keys=(*(turn.split_key for turn in before), *example.keys),
    )


def no_call(rng: Random, held_out: bool, thinking: bool) -> Example:
    return tool_use.no_call(rng, draw_turn(rng, held_out), thinking)


_TALK: dict[str, Skill] = {
    "chat": chat,
    "drill": drill,
    "styled": styled,
    "persona": persona,
    "memory": remembering,
    "long": long_chat,
}
_TOOL_USE: dict[str, Skill] = {
    "call": tool_use.single_call,
    "two calls": tool_use.two_calls,
    "tool answer": tool_use.tool_answer,
    "tool dialogue": tool_use.dialogue,
    "no tool": no_call,
    "missing tool": tool_use.missing_tool,
    "unseen tool": tool_use.unseen_call,
}


def draw(rng: Random, skill: str, held_out: bool = False, thinking: bool = False) -> Example:
    """One example of a skill; its last prompt (or its tool) is on the wanted side of the split."""
    if skill == "text":
        return Example("text", text=stories.plain_text(rng))
    if skill in _TALK:
        return _TALK[skill](rng, held_out, thinking)
    return with_system(rng, _in_conversation(rng, _TOOL_USE[skill](rng, held_out, thinking)))


def training_examples(rng: Random, count: int, long_share: float = 0.05) -> list[Example]:
    """The mixture that training reads; `long_share` is the share of long conversations."""
    weights = [*_SKILLS.values(), long_share / (1 - long_share) * sum(_SKILLS.values())]
    return [
        draw(rng, skill, thinking=rng.random() < THINKING_SHARE)
        for skill in rng.choices(SKILLS, weights, k=count)
    ]
