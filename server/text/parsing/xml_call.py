"""Tool calls in the form of Qwen3-Coder and later: a function and its parameters as elements.

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

Values are bare text; what they mean is in the function's schema. One line break on either side of a
value is not part of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from server.text.parsing.events import CALL_END, held_back

_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_LONGEST_NAME = 256  # characters; a longer one is no name
# A value may hold the mark that ends it: it counts where a parameter or the end of all follows.
_BEHIND_VALUE = re.compile(r"\s*(<parameter=|</function>)")

_State = Literal["function", "between", "value", "end"]


class XmlCallParser:
    """Implements `CallParser`.

    Args:
        schemas: By function, the JSON schema of its parameters.
    """

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        self.name: str | None = None
        self.is_complete = False
        self.is_broken = False
        self._schemas = schemas
        self._state: _State = "function"
        self._held = ""
        self._num_parameters = 0
        self._is_string = False  # the value goes out as it comes
        self._is_first = False  # nothing of the value has come
        self._value: list[str] = []

    def push(self, text: str) -> tuple[str, str]:
        self._held += text
        passed_on: list[str] = []
        while self._held and not (self.is_complete or self.is_broken):
            if not self._advance(passed_on):
                return "".join(passed_on), ""
        rest, self._held = self._held, ""
        return "".join(passed_on), rest

    def flush(self) -> None:
        self.is_complete = self._state == "end" and not self.is_broken
        self.is_broken = not self.is_complete

    def _advance(self, passed_on: list[str]) -> bool:
        """Read on; False where more text is needed."""
        if self._state == "value":
            return self._read_value(passed_on)
        self._held = self._held.lstrip()
        match self._state:
            case "function":
                return self._read_function()
            case "between":
                return self._read_between(passed_on)
            case _:
                return self._read_end()

    def _read_function(self) -> bool:
        name = self._read_tag(_FUNCTION)
        if name is not None:
            self.name, self._state = name, "between"
            self.is_broken = not name
        return name is not None or self.is_broken

    def _read_between(self, passed_on: list[str]) -> bool:
        if self._held.startswith(_FUNCTION_END):
            self._held = self._held[len(_FUNCTION_END) :]
            passed_on.append("}" if self._num_parameters else "{}")
            self._state = "end"
            return True
        if _FUNCTION_END.startswith(self._held):
            return False
        name = self._read_tag(_PARAMETER)
        if name is None:
            return self.is_broken
        self._is_string = self._takes_text(name)
        self._is_first, self._value, self._state = True, [], "value"
        passed_on.append(", " if self._num_parameters else "{")
        passed_on.append(f"{_dump(name)}: " + ('"' if self._is_string else ""))
        self._num_parameters += 1
        return True

    def _read_tag(self, tag: str) -> str | None:
        """The name in `<tag=name>`; None where more is needed or, `is_broken`, it is none."""
        head = self._held[: len(tag)]
        name, end, rest = self._held[len(tag) :].partition(">")
        if not tag.startswith(head) or len(name) > _LONGEST_NAME:
            self.is_broken = True
            return None
        if not end:
            return None
        self._held = rest
        return name.strip()

    def _read_value(self, passed_on: list[str]) -> bool:
        if self._is_first:
            self._held, self._is_first = self._held.removeprefix("\n"), False
        before, mark, behind = self._held.partition(_PARAMETER_END)
        if not mark:
            num_safe = len(self._held) - held_back(self._held, "\n" + _PARAMETER_END)
            num_safe = min(num_safe, len(self._held) - held_back(self._held, _PARAMETER_END))
            self._take(self._held[:num_safe], passed_on)
            self._held = self._held[num_safe:]
            return False
        if _BEHIND_VALUE.match(behind):
            self._take(before.removesuffix("\n"), passed_on)
            self._end_value(passed_on)
            self._held, self._state = behind, "between"
            return True
        stripped = behind.lstrip()
        if not stripped or _PARAMETER.startswith(stripped) or _FUNCTION_END.startswith(stripped):
            return False
        self._take(before + mark, passed_on)
        self._held = behind
        return True

    def _take(self, text: str, passed_on: list[str]) -> None:
        if self._is_string:
            passed_on.append(_dump(text)[1:-1])
        else:
            self._value.append(text)

    def _end_value(self, passed_on: list[str]) -> None:
        if self._is_string:
            passed_on.append('"')
            return
        text = "".join(self._value)
        try:
            passed_on.append(_dump(json.loads(text)))
        except (ValueError, RecursionError):
            passed_on.append(_dump(text))

    def _takes_text(self, parameter: str) -> bool:
        schema = self._schemas.get(self.name or "", {})
        properties = schema.get("properties")
        declared = properties.get(parameter) if isinstance(properties, dict) else None
        return isinstance(declared, dict) and declared.get("type") == "string"

    def _read_end(self) -> bool:
        if self._held.startswith(CALL_END):
            self._held = self._held[len(CALL_END) :]
            self.is_complete = True
        elif not CALL_END.startswith(self._held):
            self.is_complete = True
        return self.is_complete


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
