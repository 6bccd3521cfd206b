"""An answer's text as events: reasoning, content and tool calls, in the order they were written."""

from __future__ import annotations

from collections.abc import Callable

from server.text.parsing.events import (
    CALL_BEGIN,
    CallArguments,
    CallBegin,
    CallParser,
    Content,
    Event,
    held_back,
)
from server.text.parsing.reasoning import ReasoningParser


class AnswerParser:
    """Reads one answer, however its text is cut, in time linear in its length.

    A call is one from where its function is known, and ends where it stops being one; what begins
    like a call and is none stays text.
    White space around calls belongs to nobody.

    Args:
        new_call: Makes the parser of a call's form; None leaves calls in the text.
        reasoning: Reads the reasoning before the answer; None leaves it in the text.
    """

    def __init__(
        self,
        new_call: Callable[[], CallParser] | None = None,
        reasoning: ReasoningParser | None = None,
    ) -> None:
        self._new_call = new_call
        self._reasoning = reasoning
        self._held = ""  # text that may belong to a mark, or the space before one
        self._call: CallParser | None = None
        self._raw: list[str] = []  # of a call whose function is not known
        self._has_begun = False  # the call's function was told
        self._is_behind_call = False
        self.num_calls = 0

    def push(self, text: str) -> list[Event]:
        """What the text made certain."""
        if self._reasoning is None:
            return self._read(text)
        return self._read_all(self._reasoning.push(text))

    def flush(self) -> list[Event]:
        """What was held back, at the end of the answer."""
        events = [] if self._reasoning is None else self._read_all(self._reasoning.flush())
        if self._call is not None:
            self._call.flush()
            self._end_call("", events)
        if self._held and not (self._is_behind_call and self._held.isspace()):
            events.append(Content(self._held))
        self._held = ""
        return events

    def _read_all(self, pieces: list[Event]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            events += self._read(piece.text) if isinstance(piece, Content) else [piece]
        return events

    def _read(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text:
            text = (
                self._read_text(text, events)
                if self._call is None
                else self._read_call(self._call, text, events)
            )
        return events

    def _read_text(self, text: str, events: list[Event]) -> str:
        """Content up to the next call; returns what lies behind its mark."""
        if self._new_call is None:
            events.append(Content(text))
            return ""
        before, mark, rest = (self._held + text).partition(CALL_BEGIN)
        self._held = ""
        if mark:
            self._call, self._raw, self._has_begun = self._new_call(), [], False
            self._emit(before.rstrip(), events)
            self._raw.append(before[len(before.rstrip()) :] + mark)
            return rest
        certain = before[: len(before) - held_back(before, CALL_BEGIN)].rstrip()
        self._held = before[len(certain) :]
        self._emit(certain, events)
        return ""

    def _emit(self, text: str, events: list[Event]) -> None:
        if self._is_behind_call:
            text = text.lstrip()
        if text:
            self._is_behind_call = False
            events.append(Content(text))

    def _read_call(self, call: CallParser, text: str, events: list[Event]) -> str:
        arguments, rest = call.push(text)
        self._tell(call, text, arguments, events)
        if call.is_complete or call.is_broken:
            return self._end_call(rest, events)
        return ""

    def _tell(self, call: CallParser, text: str, arguments: str, events: list[Event]) -> None:
        if call.name and not self._has_begun:
            self._has_begun = True
            events.append(CallBegin(self.num_calls, call.name))
        if not self._has_begun:
            self._raw.append(text)
        elif arguments:
            events.append(CallArguments(self.num_calls, arguments))

    def _end_call(self, rest: str, events: list[Event]) -> str:
        """Back to text; returns what of it was not read."""
        call, self._call = self._call, None
        assert call is not None
        if not self._has_begun:
            # A parser may have held back what it was given before.
            raw = "".join(self._raw)
            events.append(Content(raw[: len(raw) - len(rest)]))
            self._is_behind_call = False
            return rest
        self.num_calls += 1
        self._is_behind_call = True
        return rest
