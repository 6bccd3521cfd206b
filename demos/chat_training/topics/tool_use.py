"""Conversations with tools: one call, two calls, a tool's answer, and no call when none fits."""

import json
from random import Random
from typing import Any

from demos.chat_training.example import Example, Message, Tool, Turn, is_held_out
from demos.chat_training.topics import tools, words
from demos.chat_training.topics.tool_values import spoken
from demos.chat_training.topics.tools import Call

NO_TOOL = "None of my tools can do that."
_DONE = ('{"status": "ok"}', '{"ok": true}', '{"success": true}', "ok", "done")


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A call as the model writes it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def call_reasoning(call: Call) -> str:
    if not call.arguments:
        return f"The tool {call.name} fits. It takes no arguments."
    listed = ", ".join(f"{key} is {spoken(value)}" for key, value in call.arguments.items())
    return f"The tool {call.name} fits. {listed[0].upper()}{listed[1:]}."


def draw_call(rng: Random, held_out: bool, unseen: bool = False) -> Call:
    """A call whose tool's name is on the wanted side of the split, or of an unseen kind."""
    if unseen:
        return tools.daily(rng, unseen=True)
    while True:
        call = tools.draw(rng)
        if is_held_out(call.name) == held_out and (held_out or not is_held_out(call.request)):
            return call


def offer(rng: Random, calls: list[Call]) -> tuple[Tool, ...]:
    """The wanted tools among up to three others, in any order; their names differ."""
    offered = {call.name: call.tool for call in calls}
    for _ in range(rng.choices((0, 1, 2, 3), (42, 30, 17, 11))[0]):
        other = draw_call(rng, held_out=False)
        offered.setdefault(other.name, other.tool)
    shuffled = list(offered.values())
    rng.shuffle(shuffled)
    return tuple(shuffled)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _answer(content: str, reasoning: str, thinking: bool) -> Message:
    message: Message = {"role": "assistant", "content": content}
    if thinking:
        message["reasoning_content"] = reasoning
    return message


def _calls(calls: list[Call], thinking: bool) -> Message:
    """The assistant's message that calls the tools."""
    message = _answer("", " ".join(map(call_reasoning, calls)), thinking)
    message["tool_calls"] = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    return message


def single_call(rng: Random, held_out: bool, thinking: bool, unseen: bool = False) -> Example:
    call = draw_call(rng, held_out, unseen)
    return Example(
        category="tool call, unseen kind" if unseen else "tool call",
        messages=(_user(call.request), _calls([call], thinking)),
        tools=offer(rng, [call]),
        thinking=thinking,
        expect=(call_text(call.name, call.arguments),),
        grade="call",
        keys=(call.request,),
    )


def unseen_call(rng: Random, held_out: bool, thinking: bool) -> Example:
    """A call of a tool whose kind is not in the training text at all."""
    return single_call(rng, held_out, thinking, unseen=True)


def two_calls(rng: Random, held_out: bool, thinking: bool) -> Example:
    """Two tools in one request."""
    first, second = draw_call(rng, held_out), draw_call(rng, held_out)
    then = second.request[0].lower() + second.request[1:]
    request = f"{first.request.rstrip('.')} and then {then}"
    if second.name == first.name or (is_held_out(request) and not held_out):
        return two_calls(rng, held_out, thinking)
    return Example(
        category="tool call, two",
        messages=(_user(request), _calls([first, second], thinking)),
        tools=offer(rng, [first, second]),
        thinking=thinking,
        expect=("\n".join(call_text(call.name, call.arguments) for call in (first, second)),),
        grade="call",
        keys=(request,),
    )


def _result(rng: Random) -> tuple[str, str, tuple[str, ...]]:
    """What a tool returns, the sentence for it and the words that must be in the sentence."""
    roll = rng.random()
    if roll < 0.12:
        return rng.choice(_DONE), "It is done.", ("done",)
    if roll < 0.22:
        error = rng.choice(("not found", "no access", "timeout", f"unknown {words.word(rng)}"))
        return json.dumps({"error": error}), f"The tool reports an error: {error}.", (error,)
    if roll < 0.34:
        value = rng.choice((str(rng.randint(0, 999)), words.word(rng), words.phrase(rng)))
        return value, f"The result is {value}.", (value,)
    keys = rng.sample(words.RESULTS, rng.choice((1, 2, 2)))
    if rng.random() < 0.15:
        keys[0] = words.made_up(rng)
    found = {
        key: rng.choice((rng.randint(0, 300), words.word(rng), words.place(rng))) for key in keys
    }
    said = " and ".join(f"the {key} is {value}" for key, value in found.items())
    returned = json.dumps(found, ensure_ascii=False)
    return returned, f"{said[0].upper()}{said[1:]}.", tuple(map(str, found.values()))


def tool_answer(rng: Random, held_out: bool, thinking: bool) -> Example:
    """A call, what the tool returned, and the sentence for the user."""
    call = draw_call(rng, held_out)
    returned, answer, expect = _result(rng)
    messages = (
        _user(call.request),
        _calls([call], thinking),
        {"role": "tool", "content": returned},
        _answer(answer, "The tool has answered. I tell the user.", thinking),
    )
    keys = (call.request,)
    return Example("tool answer", messages, offer(rng, [call]), thinking, expect, keys=keys)


def dialogue(rng: Random, held_out: bool, thinking: bool) -> Example:
    """A call and its answer, then a second request for one of the tools."""
    before = tool_answer(rng, held_out=False, thinking=False)
    call = draw_call(rng, held_out)
    offered = {tool["function"]["name"]: tool for tool in (*before.tools, call.tool)}
    return Example(
        category="tool call",
        messages=(*before.messages, _user(call.request), _calls([call], thinking)),
        tools=tuple(offered.values()),
        thinking=thinking,
        expect=(call_text(call.name, call.arguments),),
        grade="call",
        keys=(*before.keys, call.request),
    )


def no_call(rng: Random, turn: Turn, thinking: bool) -> Example:
    """A question that needs none of the tools that are offered."""
    answer = _answer(turn.answer, f"No tool is needed. {turn.reasoning}", thinking)
    offered = offer(rng, [draw_call(rng, held_out=False)])
    messages, keys = (_user(turn.prompt), answer), (turn.split_key,)
    return Example(
        "no tool fits", messages, offered, thinking, turn.expected, turn.grade, keys=keys
    )


def missing_tool(rng: Random, held_out: bool, thinking: bool) -> Example:
    """A request for a tool that is not among those offered."""
    wanted, other = tools.draw(rng), draw_call(rng, held_out=False)
    while is_held_out(wanted.request) != held_out:
        wanted = tools.draw(rng)
    while other.subject == wanted.subject:
        other = draw_call(rng, held_out=False)
    reasoning = f"The user wants to {wanted.subject}. No tool fits."
    messages = (_user(wanted.request), _answer(NO_TOOL, reasoning, thinking))
    keys = (wanted.request,)
    return Example("no tool fits", messages, (other.tool,), thinking, (NO_TOOL,), keys=keys)
