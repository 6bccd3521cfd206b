"""Functions that a model may call, in OpenAI's form and in the older one without tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from server.schema.described import NonEmptyText, described
from server.schema.structured import StructuredFields
from server.text.tool_calls import Function

MAX_TOOLS = 128


class FunctionDefinition(msgspec.Struct, kw_only=True):
    """`parameters` is a JSON schema."""

    name: NonEmptyText
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class QwenParameter(msgspec.Struct, kw_only=True):
    """A parameter in the form of Qwen's own server; `schema` is a JSON schema."""

    name: str
    description: str | None = None
    required: bool | None = None
    schema: dict[str, Any] | None = None


class QwenFunction(msgspec.Struct, kw_only=True):
    """A function in the form of Qwen's own server."""

    name_for_model: NonEmptyText
    name_for_human: str | None = None
    description_for_model: str | None = None
    parameters: list[QwenParameter] | dict[str, Any] | None = None


class Tool(msgspec.Struct, kw_only=True):
    """A function that the model may call; the template gets it just as it was sent."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(msgspec.Struct, kw_only=True):
    name: str


class NamedToolChoice(msgspec.Struct, tag_field="type", tag="function", kw_only=True):
    """The one function that has to be called."""

    function: FunctionName


class AllowedFunction(msgspec.Struct, kw_only=True):
    """One of several functions that may be called."""

    type: Literal["function"]
    function: FunctionName


class AllowedFunctions(msgspec.Struct, kw_only=True):
    """Those of the tools that may be called, or of which one has to be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedFunction], Meta(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(msgspec.Struct, tag_field="type", tag="allowed_tools", kw_only=True):
    """Some of the tools: the prompt has all, so that it stays the same."""

    allowed_tools: AllowedFunctions


class CalledFunction(msgspec.Struct, kw_only=True):
    """`arguments` is JSON in a string."""

    name: str
    arguments: str


class MessageToolCall(msgspec.Struct, kw_only=True):
    """A call in a whole answer."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class FunctionDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The name comes first, then the arguments in pieces."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of a call in a stream; id, type and name come with the first of a call."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


_TOOL_CHOICES = ("none", "auto", "required")
_FUNCTION_CALLS = ("none", "auto")
_ToolChoice = Annotated[str, described(enum=[*_TOOL_CHOICES])]
_FunctionCall = Annotated[str, described(enum=[*_FUNCTION_CALLS])]


class ToolFields(StructuredFields, kw_only=True):
    """Beside sampling and form: functions, as tools or in the older form without."""

    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: _ToolChoice | NamedToolChoice | AllowedToolsChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], Meta(max_length=MAX_TOOLS)] | None = None
    function_call: _FunctionCall | FunctionName | None = None

    @property
    def is_legacy(self) -> bool:
        """Whether the request is of the form before tools, and so its answer."""
        return bool(self.functions)

    @property
    def functions_field(self) -> str:
        """The field that has the functions, for errors."""
        return "functions" if self.is_legacy else "tools"

    @property
    def offers_tools(self) -> bool:
        choice = self.function_call if self.is_legacy else self.tool_choice
        return bool(self.functions or self.tools) and choice != "none"

    @property
    def must_call(self) -> bool:
        """Whether only a call can be the answer."""
        if self.is_legacy:
            return isinstance(self.function_call, FunctionName)
        choice = self.tool_choice
        if isinstance(choice, AllowedToolsChoice):
            return choice.allowed_tools.mode == "required"
        return choice == "required" or isinstance(choice, NamedToolChoice)

    @property
    def allows_parallel_calls(self) -> bool:
        is_named = isinstance(self.tool_choice, NamedToolChoice)
        return self.parallel_tool_calls is not False and not self.is_legacy and not is_named

    def offered_functions(self) -> list[Function]:
        """The functions that may be called.

        Raises:
            InvalidRequest: A name is used twice, or the chosen one is not there.
        """
        if not self.offers_tools:
            return []
        definitions = self.functions or [tool.function for tool in self.tools or ()]
        return offered(definitions, self.functions_field, self._chosen_names())

    def _chosen_names(self) -> list[str] | None:
        choice = self.function_call if self.is_legacy else self.tool_choice
        match choice:
            case FunctionName():
                return [choice.name]
            case NamedToolChoice():
                return [choice.function.name]
            case AllowedToolsChoice():
                return [tool.function.name for tool in choice.allowed_tools.tools]
        return None

    def check_tools(self) -> None:
        """Raises `InvalidRequest` where the fields contradict each other."""
        if self.functions and self.tools:
            raise InvalidRequest("functions and tools are both set, but one replaces the other",
                                 "functions")  # fmt: skip
        for name, choice, allowed, owner in (
            ("tool_choice", self.tool_choice, _TOOL_CHOICES, self.tools),
            ("function_call", self.function_call, _FUNCTION_CALLS, self.functions),
        ):
            if isinstance(choice, str) and choice not in allowed:
                raise InvalidRequest(
                    f"{name} is {shown(choice)}, but it must be {', '.join(allowed)} or name a "
                    "function",
                    name,
                )
            if choice not in (None, "none", "auto") and not owner:
                field = "tools" if name == "tool_choice" else "functions"
                raise InvalidRequest(f"{name} asks for a call, but {field} is empty", name)


def offered(
    definitions: Sequence[FunctionDefinition], field: str, chosen: Sequence[str] | None
) -> list[Function]:
    """The functions of a request: all, or those that were chosen by their names.

    Raises:
        InvalidRequest: Two have one name, or none has a chosen one.
    """
    functions: dict[str, Function] = {}
    for index, definition in enumerate(definitions):
        if not definition.name or definition.name in functions:
            problem = "used twice" if definition.name else "empty"
            raise InvalidRequest(
                f"{field}[{index}] has the name {definition.name!r}, which is {problem}",
                f"{field}[{index}]",
            )
        parameters = definition.parameters
        functions[definition.name] = (
            Function(definition.name)
            if parameters is None
            else Function(definition.name, parameters)
        )
    if chosen is None:
        return list(functions.values())
    for name in chosen:
        if name not in functions:
            known = ", ".join(functions) or "none"
            raise InvalidRequest(
                f"tool_choice names the function {name!r}, but {field} has {known}", "tool_choice"
            )
    return [functions[name] for name in dict.fromkeys(chosen)]


def shown(value: object) -> str:
    """A value as JSON for a message, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
