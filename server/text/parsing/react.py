"""Calls in the form of the first Qwen: thoughts, an action and its input as lines of text.

    Thought: I should look it up.
    Action: get_weather
    Action Input: {"city": "Paris"}
    Observation: (what the function answers; the model stops before it)

or, instead of an action, `Final Answer: ` and the answer.
"""

from __future__ import annotations

from server.text.parsing.events import (
    CallArguments,
    CallBegin,
    Content,
    Event,
    Reasoning,
    held_back,
)

THOUGHT, ACTION, INPUT = "Thought:", "Action:", "Action Input:"
OBSERVATION, ANSWER = "Observation:", "Final Answer:"
_LONGEST_NAME = 256  # characters; a longer one is no name


class ReactParser:
    """Reads one answer, however its text is cut, in time linear in its length.

    Thoughts are held back until it is known what they lead to: before a call they are its content,
    as clients of that model expect, and before a final answer they are reasoning. Text without
    these lines is content as it comes.

    Args:
        is_thinking: Whether the prompt has begun the thought already.
    """

    def __init__(self, *, is_thinking: bool = False) -> None:
        self.num_calls = 0
        # A line break before the answer, so that all lines begin behind one.
        self._held = f"\n{THOUGHT}" if is_thinking else "\n"
        self._read = self._read_thought if is_thinking else self._read_start
        self._num_searched = 0  # characters of a thought in which no line of another kind begins
        self._before = ""  # what stands before the action
        self._is_first = True  # nothing of the text or the input was told

    def push(self, text: str) -> list[Event]:
        """What the text made certain."""
        self._held += text
        events: list[Event] = []
        while self._read(events):
            pass
        return events

    def flush(self) -> list[Event]:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if self._read == self._read_arguments:
            return [CallArguments(0, "{}")] if self._is_first and not held.strip() else []
        if self._read == self._read_name:
            held = f"{self._before}\n{ACTION}{held}"
        if self._read == self._read_end or not held.strip():
            return []
        return [Content(held.lstrip("\n") if self._is_first else held)]

    def _read_start(self, events: list[Event]) -> bool:
        begun = self._held.lstrip()
        if begun.startswith(THOUGHT):
            self._read, self._held = self._read_thought, f"\n{begun}"
            return True
        if THOUGHT.startswith(begun):
            return False
        self._read = self._read_text
        return True

    def _read_thought(self, events: list[Event]) -> bool:
        start = max(0, self._num_searched - len(f"\n{ANSWER}"))
        found = [
            (place, mark)
            for mark in (f"\n{ACTION}", f"\n{ANSWER}")
            if (place := self._held.find(mark, start)) >= 0
        ]
        self._num_searched = len(self._held)
        if not found:
            return False
        place, mark = min(found)
        thought, self._held = _thought(self._held[:place]), self._held[place + len(mark) :]
        if mark == f"\n{ACTION}":
            self._before, self._read = thought, self._read_name
        else:
            self._read = self._read_answer
            if thought:
                events.append(Reasoning(thought))
        return True

    def _read_text(self, events: list[Event]) -> bool:
        mark = f"\n{ACTION}"
        before, found, rest = self._held.partition(mark)
        if found:
            self._held, self._read = rest, self._read_name
            self._tell(before, events)
            return True
        num_safe = len(before) - held_back(before, mark)
        self._held = before[num_safe:]
        self._tell(before[:num_safe], events)
        return False

    def _read_name(self, events: list[Event]) -> bool:
        name, mark, rest = self._held.partition(f"\n{INPUT}")
        if not mark and len(name) <= _LONGEST_NAME:
            return False
        name = name.strip()
        if not mark or not name or "\n" in name:
            self._held, self._before = f"{self._before}\n{ACTION}{self._held}", ""
            self._read = self._read_answer
            return True
        if self._before:
            events.append(Content(self._before))
        events.append(CallBegin(0, name))
        self.num_calls = 1
        self._held, self._is_first, self._read = rest, True, self._read_arguments
        return True

    def _read_arguments(self, events: list[Event]) -> bool:
        if self._is_first:
            self._held = self._held.lstrip()
        arguments, mark, _ = self._held.partition(f"\n{OBSERVATION}")
        if mark:
            self._held, self._read = "", self._read_end
        else:
            arguments = arguments[: len(arguments) - held_back(arguments, f"\n{OBSERVATION}")]
            self._held = self._held[len(arguments.rstrip()) :]
        arguments = arguments.rstrip()
        if arguments:
            self._is_first = False
            events.append(CallArguments(0, arguments))
        return bool(mark)

    def _read_answer(self, events: list[Event]) -> bool:
        self._tell(self._held, events)
        self._held = ""
        return False

    def _read_end(self, events: list[Event]) -> bool:
        self._held = ""
        return False

    def _tell(self, text: str, events: list[Event]) -> None:
        if self._is_first:
            text = text.lstrip()
        if text:
            self._is_first = False
            events.append(Content(text))


def _thought(text: str) -> str:
    return text.strip().removeprefix(THOUGHT).strip()
