"""Finds stop strings in text that comes in pieces, without ever letting a part of one out.

The matcher is an Aho-Corasick automaton: its state is the longest tail of the text that could begin
a stop string, which is just what has to be held back. How the text is cut changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


class StopStrings:
    """A set of stop strings, compiled once for all sequences of a request.

    Raises:
        ValueError: A stop string is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.children: list[dict[str, int]] = [{}]  # by state; state 0 is "nothing held back"
        self.depth = [0]  # characters held back in a state
        self.matched = [0]  # length of the longest stop string that ends in a state, 0 for none
        for stop in stops:
            self._insert(stop)
        self.fallback = [0] * len(self.depth)  # longest proper tail of a state that is one as well
        self._link()
        firsts = "".join(re.escape(char) for char in self.children[0])
        self.first_char = re.compile(f"[{firsts}]") if firsts else re.compile("(?!)")

    def _insert(self, stop: str) -> None:
        if not stop:
            raise ValueError("a stop string is empty, but it must have at least one character")
        state = 0
        for char in stop:
            if char not in self.children[state]:
                self.children[state][char] = len(self.depth)
                self.children.append({})
                self.depth.append(self.depth[state] + 1)
                self.matched.append(0)
            state = self.children[state][char]
        self.matched[state] = len(stop)

    def _link(self) -> None:
        queue = list(self.children[0].values())
        for state in queue:  # breadth first, so shallower fallbacks are ready
            for char, child in self.children[state].items():
                self.fallback[child] = self.next_state(self.fallback[state], char)
                queue.append(child)
            if not self.matched[state]:
                self.matched[state] = self.matched[self.fallback[state]]

    def next_state(self, state: int, char: str) -> int:
        """Where a character leads; amortized constant time."""
        while state and char not in self.children[state]:
            state = self.fallback[state]
        return self.children[state].get(char, 0)


class StopMatcher:
    """Lets the text of one sequence through, up to the first stop string.

    The stop string that is complete first counts; of several that end together, the longest.
    """

    __slots__ = ("_held", "_state", "_stops", "is_stopped", "matched")

    def __init__(self, stops: StopStrings) -> None:
        self._stops = stops
        self._state = 0
        self._held = ""
        self.is_stopped = False
        self.matched: str | None = None  # the stop string that counted

    def push(self, text: str) -> str:
        """The text that is certain not to be part of a stop string; "" once stopped."""
        if self.is_stopped:
            return ""
        stops = self._stops
        state = self._state
        position = 0
        while position < len(text):
            if not state:
                found = stops.first_char.search(text, position)
                if found is None:
                    break
                position = found.start()
            state = stops.next_state(state, text[position])
            position += 1
            if stops.matched[state]:
                self.is_stopped = True
                end = len(self._held) + position
                text, begin = self._held + text, end - stops.matched[state]
                self.matched = text[begin:end]
                text = text[:begin]
                self._held = ""
                return text
        self._state = state
        text = self._held + text
        num_safe = len(text) - stops.depth[state]
        self._held = text[num_safe:]
        return text[:num_safe]

    def flush(self) -> str:
        """What was held back, at the end of a text in which no stop string was found."""
        text, self._held, self._state = self._held, "", 0
        return text
