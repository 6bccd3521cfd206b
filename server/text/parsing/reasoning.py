"""Tells what a model thinks, between `<think>` and `</think>`, from what it answers."""

from __future__ import annotations

from typing import Literal

from server.text.parsing.events import Content, Event, Reasoning, held_back

BEGIN, END = "<think>", "</think>"

_State = Literal["start", "reasoning", "gap", "content"]


class ReasoningParser:
    """Splits one answer; line breaks around the marks belong to neither side.

    Only an answer that begins with `<think>` holds reasoning: the word may be part of any text.

    Args:
        is_open: Whether the prompt has begun the reasoning already.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self._state: _State = "reasoning" if is_open else "start"
        self._held = ""
        self._is_first = True  # nothing but line breaks has come since the mark

    def push(self, text: str) -> list[Event]:
        """What the text made certain."""
        events: list[Event] = []
        self._held += text
        if self._state == "start":
            self._read_start()
        if self._state == "reasoning":
            self._read_reasoning(events)
        if self._state == "gap":
            self._held = self._held.lstrip("\n")
            if self._held:
                self._state = "content"
        if self._state == "content" and self._held:
            events.append(Content(self._held))
            self._held = ""
        return events

    def flush(self) -> list[Event]:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if self._state == "reasoning":
            held = held.rstrip("\n")
            return [Reasoning(held)] if held else []
        return [Content(held)] if held and self._state == "start" else []

    def _read_start(self) -> None:
        text = self._held.lstrip()
        if text.startswith(BEGIN):
            self._state, self._held = "reasoning", text[len(BEGIN) :]
        elif not BEGIN.startswith(text):
            self._state = "content"

    def _read_reasoning(self, events: list[Event]) -> None:
        if self._is_first:
            self._held = self._held.lstrip("\n")
        thought, mark, rest = self._held.partition(END)
        if mark:
            thought = thought.rstrip("\n")
            self._state, self._held = "gap", rest
        else:
            certain = self._held[: len(self._held) - held_back(self._held, END)]
            thought = certain.rstrip("\n")
            self._held = self._held[len(thought) :]
        if thought:
            self._is_first = False
            events.append(Reasoning(thought))
