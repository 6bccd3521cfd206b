"""Keeps special tokens in a client's strings from becoming tokens of the chat template's own.

Each occurrence is broken by a mark before the template is rendered; the tokenizer takes the mark
out again after it has looked for special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from engines.errors import InvalidRequest

MAX_DEPTH = 64

# Code points that Unicode reserves for the inside of programs: no text is meant to hold them.
# U+FDEF is left to the chat template.
_NONCHARACTERS = [*range(0xFDD0, 0xFDEF)] + [
    plane << 16 | low for plane in range(17) for low in (0xFFFE, 0xFFFF)
]


class SpecialTokenEscape:
    """Breaks the special tokens of one tokenizer."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        # The first character of every occurrence, those that overlap included.
        firsts = (f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in special_tokens)
        self._pattern = re.compile("|".join(firsts) or "(?!)")

    def escape(self, value: Any, mark: str) -> Any:
        """A copy of JSON-like data with every special token in a string, keys too, broken."""
        if isinstance(value, str):
            return self._pattern.sub(lambda first: first[0] + mark, value)
        if isinstance(value, dict):
            return {self.escape(k, mark): self.escape(v, mark) for k, v in value.items()}
        if isinstance(value, list):
            return [self.escape(item, mark) for item in value]
        return value


def unused_mark(*values: Any) -> str:
    """A noncharacter that occurs in no string of the JSON-like values.

    Raises:
        InvalidRequest: All of them occur, or the values are nested deeper than `MAX_DEPTH`.
    """
    texts = [text for value in values for text in _strings(value, 0)]
    for code_point in _NONCHARACTERS:
        mark = chr(code_point)
        if not any(mark in text for text in texts):
            return mark
    raise InvalidRequest("the messages hold every noncharacter of Unicode, but one must be free")


def _strings(value: Any, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise InvalidRequest(
            f"the messages or tools are nested deeper than {MAX_DEPTH} levels, which is the limit"
        )
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, depth + 1)
