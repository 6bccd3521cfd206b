"""What parsers make of an answer's text."""

from __future__ import annotations

from typing import NamedTuple, Protocol

CALL_BEGIN, CALL_END = "<tool_call>", "</tool_call>"


class Reasoning(NamedTuple):
    """A piece of what the model thought before its answer."""

    text: str


class Content(NamedTuple):
    """A piece of the answer itself."""

    text: str


class CallBegin(NamedTuple):
    """A tool call whose function is known."""

    call: int  # counted from 0
    name: str


class CallArguments(NamedTuple):
    """A piece of a call's arguments; together they are what the model meant as a JSON object."""

    call: int  # counted from 0
    text: str


Event = Reasoning | Content | CallBegin | CallArguments


class AnswerReader(Protocol):
    """Reads one answer, however its text is cut."""

    num_calls: int  # that are complete so far

    def push(self, text: str) -> list[Event]:
        """What the text made certain."""
        ...

    def flush(self) -> list[Event]:
        """What was held back, at the end of the answer."""
        ...


class CallParser(Protocol):
    """Reads the body of one tool call, from behind the mark that begins it.

    `is_complete` and `is_broken` are False until one of them turns True for good.
    """

    name: str | None  # of the function, once it is known
    is_complete: bool
    is_broken: bool

    def push(self, text: str) -> tuple[str, str]:
        """Take in text: the arguments that it made certain, and what lies behind a complete call.

        Where the text cannot be a call, `is_broken` turns True and what was not read is returned
        as the second.
        """
        ...

    def flush(self) -> None:
        """The answer has ended: a call that is not complete by then is broken."""
        ...


def held_back(text: str, mark: str) -> int:
    """Length of the longest end of `text` that could begin `mark`, the whole mark not counted."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
