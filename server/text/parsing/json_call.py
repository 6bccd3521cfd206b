"""Tool calls in the form of Hermes, Qwen2.5 and Qwen3: a JSON object between two marks.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

Marks inside of strings are text: the object's own end is what counts, and a call whose object has
ended is complete with or without the second mark.
"""

from __future__ import annotations

import json
from typing import Literal

from server.text.parsing.events import CALL_END
from server.text.parsing.json_value import JsonValue

_ARGUMENTS = ("arguments", "parameters")

_State = Literal["open", "key", "colon", "value", "comma", "end"]


class JsonCallParser:
    """Implements `CallParser`."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.is_complete = False
        self.is_broken = False
        self._state: _State = "open"
        self._value: JsonValue | None = None  # the key or the value that is being read
        self._raw: list[str] = []  # its text, where it is not passed on as it comes
        self._key = ""
        self._waiting: list[str] = []  # arguments that came before the name
        self._has_arguments = False
        self._is_streaming = False  # the value is passed on as it comes
        self._mark = ""  # the part of the end mark that was seen

    def push(self, text: str) -> tuple[str, str]:
        passed_on: list[str] = []
        position = 0
        while position < len(text) and not (self.is_complete or self.is_broken):
            position = self._step(text, position, passed_on)
        rest = text[position:]
        if self.is_complete and self._mark != CALL_END:
            rest = self._mark + rest
        return "".join(passed_on), rest

    def flush(self) -> None:
        self.is_complete = self._state == "end" and not self.is_broken
        self.is_broken = not self.is_complete

    def _step(self, text: str, position: int, passed_on: list[str]) -> int:
        if self._value is not None:
            return self._read_value(self._value, text, position, passed_on)
        char = text[position]
        if char.isspace() and not self._mark:
            return position + 1
        match self._state:
            case "open":
                return self._expect(char == "{", "key", position)
            case "key" if char == "}":
                return self._end_object(position, passed_on)
            case "key" if char == '"':
                self._value = JsonValue()
                return position
            case "key":
                return self._expect(False, "key", position)
            case "colon":
                return self._expect(char == ":", "value", position)
            case "value":
                self._value = JsonValue()
                self._is_streaming = self._key in _ARGUMENTS and char == "{"
                self._has_arguments |= self._key in _ARGUMENTS
                return position
            case "comma" if char == "}":
                return self._end_object(position, passed_on)
            case "comma":
                return self._expect(char == ",", "key", position)
            case "end":
                return self._read_mark(char, position)

    def _expect(self, is_met: bool, state: _State, position: int) -> int:
        if not is_met:
            self.is_broken = True
            return position
        self._state = state
        return position + 1

    def _read_value(self, value: JsonValue, text: str, position: int, passed_on: list[str]) -> int:
        end = value.scan(text, position)
        piece = text[position:end]
        if self._is_streaming:
            self._pass_on(piece, passed_on)
        else:
            self._raw.append(piece)
        if value.is_complete:
            self._value = None
            self._end_value(passed_on)
        return end

    def _end_value(self, passed_on: list[str]) -> None:
        raw, self._raw = "".join(self._raw), []
        was_streaming, self._is_streaming = self._is_streaming, False
        if self._state == "key":
            self._key, self._state = _string(raw) or "", "colon"
            return
        self._state = "comma"
        if self._key == "name":
            self.name = _string(raw)
            self.is_broken = not self.name
            self._pass_on("", passed_on)
        elif self._key in _ARGUMENTS and not was_streaming:
            # Some models write the object as a string, or null for none.
            self._pass_on(_string(raw) or ("{}" if raw == "null" else raw), passed_on)

    def _pass_on(self, piece: str, passed_on: list[str]) -> None:
        if self.name is None:
            self._waiting.append(piece)
        else:
            passed_on += [*self._waiting, piece]
            self._waiting = []

    def _end_object(self, position: int, passed_on: list[str]) -> int:
        self._state = "end"
        if self.name is None:
            self.is_broken = True
        elif not self._has_arguments:
            self._pass_on("{}", passed_on)
        return position + 1

    def _read_mark(self, char: str, position: int) -> int:
        if not CALL_END.startswith(self._mark + char):
            self.is_complete = True
            return position
        self._mark += char
        self.is_complete = self._mark == CALL_END
        return position + 1


def _string(raw: str) -> str | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) else None
