"""`/v1/messages`: the request, in Anthropic's shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from server.schema.chat import MAX_MESSAGES
from server.schema.described import NonEmptyText
from server.schema.sampling import MAX_STOPS, SamplingFields, Stop
from server.schema.tools import MAX_TOOLS, FunctionDefinition, offered
from server.text.grammar import GrammarSpec
from server.text.tool_calls import Function


class TextBlock(msgspec.Struct, tag_field="type", tag="text", kw_only=True):
    """A piece of text."""

    text: str


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking", kw_only=True):
    """What the model thought; it is not signed, so the signature is empty."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(
    msgspec.Struct, tag_field="type", tag="redacted_thinking", kw_only=True
):
    """What another server's model thought; left out of the prompt."""

    data: str


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use", kw_only=True):
    """A call that the model makes or made."""

    id: str
    name: str
    input: dict[str, Any]


class PlainText(msgspec.Struct, kw_only=True):
    """A piece of a text where there is nothing else."""

    type: Literal["text"]
    text: str


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result", kw_only=True):
    """What a tool answered; `Error: ` is put before it where `is_error`."""

    tool_use_id: str
    content: str | list[PlainText] | None = None
    is_error: bool | None = None


UserBlock = TextBlock | ToolResultBlock
AssistantBlock = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock


class UserTurn(msgspec.Struct, tag_field="role", tag="user", kw_only=True):
    content: str | list[UserBlock]


class AssistantTurn(msgspec.Struct, tag_field="role", tag="assistant", kw_only=True):
    """As the last one it is the beginning of the answer."""

    content: str | list[AssistantBlock]


class ClientTool(msgspec.Struct, kw_only=True):
    """A function that the model may call; `input_schema` is a JSON schema."""

    name: NonEmptyText
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None


class _Choice(msgspec.Struct, tag_field="type", kw_only=True):
    disable_parallel_tool_use: bool | None = None


class ChooseAuto(_Choice, tag="auto", kw_only=True):
    """The model may call."""


class ChooseAny(_Choice, tag="any", kw_only=True):
    """The model has to call."""


class ChooseTool(_Choice, tag="tool", kw_only=True):
    """The model has to call this one."""

    name: str


class ChooseNone(_Choice, tag="none", kw_only=True):
    """The model must not call."""


class ThinkingEnabled(msgspec.Struct, tag_field="type", tag="enabled", kw_only=True):
    """Thinks for so many tokens at most."""

    budget_tokens: Annotated[int, Meta(ge=1)]


class ThinkingAdaptive(msgspec.Struct, tag_field="type", tag="adaptive", kw_only=True):
    """Thinks as much as it wants."""


class ThinkingDisabled(msgspec.Struct, tag_field="type", tag="disabled", kw_only=True):
    """Does not think, where the template can switch it off; so it is without `thinking`."""


class JsonOutput(msgspec.Struct, kw_only=True):
    """JSON that a schema allows."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True):
    """How much effort, and the form of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonOutput | None = None


class CountTokensRequest(msgspec.Struct, kw_only=True):
    """A conversation and what belongs to its prompt."""

    model: str
    messages: Annotated[list[UserTurn | AssistantTurn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[PlainText] | None = None
    tools: Annotated[list[ClientTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ChooseAuto | ChooseAny | ChooseTool | ChooseNone | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None = None
    output_config: OutputConfig | None = None

    @property
    def must_call(self) -> bool:
        """Whether only a call can be the answer."""
        return isinstance(self.tool_choice, ChooseAny | ChooseTool)

    @property
    def is_parallel(self) -> bool:
        """Whether an answer may hold several calls."""
        choice = self.tool_choice
        is_off = choice is not None and choice.disable_parallel_tool_use is True
        return not is_off and not isinstance(choice, ChooseTool)

    @property
    def thinking_budget(self) -> int | None:
        thinking = self.thinking
        return thinking.budget_tokens if isinstance(thinking, ThinkingEnabled) else None

    def template_variables(self) -> dict[str, Any]:
        """What the chat template is told of thinking, which is off unless it is asked for."""
        thinks = isinstance(self.thinking, ThinkingEnabled | ThinkingAdaptive)
        variables: dict[str, Any] = {"enable_thinking": thinks}
        if self.output_config is not None and self.output_config.effort is not None:
            variables["reasoning_effort"] = self.output_config.effort
        return variables

    def offered_functions(self) -> list[Function]:
        """The functions that may be called.

        Raises:
            InvalidRequest: A name is used twice, or the chosen one is not there.
        """
        choice = self.tool_choice
        if isinstance(choice, ChooseNone):
            return []
        if choice is not None and self.must_call and not self.tools:
            raise InvalidRequest("tool_choice asks for a call, but tools is empty", "tool_choice")
        definitions = [
            FunctionDefinition(name=tool.name, parameters=tool.input_schema)
            for tool in self.tools or ()
        ]
        return offered(
            definitions, "tools", [choice.name] if isinstance(choice, ChooseTool) else None
        )

    def grammar(self) -> GrammarSpec | None:
        """What the answer has to be, or None."""
        if self.output_config is None or self.output_config.format is None:
            return None
        return GrammarSpec.json_schema(
            self.output_config.format.schema, "output_config.format.schema"
        )


class MessageRequest(CountTokensRequest, kw_only=True):
    """What a client sends. Beside Anthropic's fields: `min_p` and `seed`."""

    max_tokens: Annotated[int, Meta(ge=1)]
    stream: bool | None = None
    stop_sequences: Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None

    def check(self) -> None:
        """Check what fields say together.

        Raises:
            InvalidRequest: Two fields contradict each other.
        """
        budget = self.thinking_budget
        if budget is not None and budget >= self.max_tokens:
            raise InvalidRequest(
                f"thinking.budget_tokens is {budget}, but it must be below max_tokens, which is "
                f"{self.max_tokens}",
                "thinking.budget_tokens",
            )

    def sampling(self) -> SamplingFields:
        """What chat requests call sampling."""
        return SamplingFields(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            stop=self.stop_sequences or None,
        )
