"""Finds where a JSON value ends in text that comes in pieces."""

from __future__ import annotations

import re

_IN_STRING = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["{}\[\],\s]')


class JsonValue:
    """Follows one value from its first character; it is found, not validated.

    `is_complete` turns True at the value's end: a string's or a container's last character, or for
    a bare word what follows it.
    """

    __slots__ = ("_depth", "_in_string", "_is_escaped", "_is_word", "is_complete")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._is_word = False
        self.is_complete = False

    def scan(self, text: str, start: int) -> int:
        """The index behind the last character of the value that lies in `text[start:]`."""
        position = start
        while position < len(text) and not self.is_complete:
            if self._is_escaped:
                self._is_escaped = False
                position += 1
            elif self._in_string:
                position = self._scan_string(text, position)
            else:
                position = self._scan_outside(text, position)
        return position

    def _scan_string(self, text: str, position: int) -> int:
        found = _IN_STRING.search(text, position)
        if found is None:
            return len(text)
        if found[0] == "\\":
            self._is_escaped = True
        else:
            self._in_string = False
            self.is_complete = self._depth == 0
        return found.end()

    def _scan_outside(self, text: str, position: int) -> int:
        found = _OUTSIDE.search(text, position)
        if found is None:
            self._is_word = True
            return len(text)
        self._is_word |= found.start() > position
        char = found[0]
        if self._depth == 0 and self._is_word:
            self.is_complete = True  # a number, true, false or null ends before what follows it
            return found.start()
        if char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            if self._depth == 0:
                self.is_complete = True
                return found.start()
            self._depth -= 1
            self.is_complete = self._depth == 0
        elif self._depth == 0:
            self.is_complete = True  # a comma or a space where a value was to begin
            return found.start()
        self._is_word = False
        return found.end()
