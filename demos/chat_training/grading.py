"""Says whether an answer is right, and whether it keeps the rules of think blocks."""

import json
import re
from typing import Any

from demos.chat_training.example import Example

_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


def split_thought(text: str) -> tuple[str | None, str]:
    """The think block (None without one) and what follows it."""
    if not text.startswith("<think>"):
        return None, text
    thought, _, answer = text.partition("</think>")
    return thought.removeprefix("<think>").strip(), answer.strip()


def _parsed_calls(text: str) -> list[Any] | None:
    try:
        return [json.loads(call) for call in _CALL.findall(text)]
    except ValueError:
        return None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_right(example: Example, answer: str) -> bool:
    """Grade an answer without its think block: same calls, same JSON, or the words wanted."""
    if example.grade == "call":
        return _parsed_calls(answer) == _parsed_calls(example.expect[0])
    if "<tool_call>" in answer:
        return False
    if example.grade == "json":
        return _parsed(answer) == _parsed(example.expect[0]) or answer == example.expect[0]
    return all(re.search(rf"(?<!\w){re.escape(want)}(?!\w)", answer) for want in example.expect)


def follows_think_rule(example: Example, text: str) -> bool:
    """One closed think block when thinking is on, none when it is off."""
    if not example.thinking:
        return "<think>" not in text and "</think>" not in text
    return text.startswith("<think>") and text.count("</think>") == 1
