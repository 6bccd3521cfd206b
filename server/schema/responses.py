"""`/v1/responses`: the request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from server.schema.chat import ReasoningEffort, check_template_variables, thinking_variables
from server.schema.described import NonEmptyText
from server.schema.response_items import InputItem
from server.schema.sampling import MAX_STOPS, MAX_TOP_LOGPROBS, SamplingFields, Stop
from server.schema.structured import JsonObjectFormat, TextFormat
from server.schema.tools import MAX_TOOLS, FunctionDefinition, offered
from server.text.grammar import GrammarSpec
from server.text.tool_calls import Function

MAX_ITEMS = 4096

Include = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]


class ResponseTool(msgspec.Struct, kw_only=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    type: Literal["function"]
    name: NonEmptyText
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def definition(self) -> FunctionDefinition:
        """The same as chat requests have it."""
        return FunctionDefinition(
            name=self.name, description=self.description, parameters=self.parameters
        )


class NamedFunction(msgspec.Struct, tag_field="type", tag="function", kw_only=True):
    """The one function that has to be called."""

    name: str


class AllowedTool(msgspec.Struct, kw_only=True):
    """One of several functions that may be called."""

    type: Literal["function"]
    name: str


class AllowedTools(msgspec.Struct, tag_field="type", tag="allowed_tools", kw_only=True):
    """Those of the tools that may be called, or of which one has to be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Meta(min_length=1, max_length=MAX_TOOLS)]


class ResponseSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", kw_only=True):
    """JSON that a schema allows; enforced whether `strict` or not."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class ResponseText(msgspec.Struct, kw_only=True):
    """The form of the answer."""

    format: TextFormat | JsonObjectFormat | ResponseSchemaFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponseReasoning(msgspec.Struct, kw_only=True):
    """How much the model thinks; the reasoning comes whole, whatever `summary` says."""

    effort: ReasoningEffort | None = None
    summary: Literal["auto"] | None = None


class ResponseStreamOptions(msgspec.Struct, kw_only=True):
    """Streams are not obfuscated."""

    include_obfuscation: bool | None = None


class ResponseRequest(msgspec.Struct, kw_only=True):
    """What a client sends. Beside OpenAI's fields: `top_k`, `min_p`, `seed`, `stop`,
    `chat_template_kwargs`, `enable_thinking` and `thinking_budget`, as in chat requests.
    """

    model: str
    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=MAX_ITEMS)]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    text: ResponseText | None = None
    reasoning: ResponseReasoning | None = None
    include: list[Include] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None

    def check(self) -> None:
        """Check what fields say together.

        Raises:
            InvalidRequest: Two fields contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "stream_options is set, but it is only allowed when stream is true",
                "stream_options",
            )
        check_template_variables(self.chat_template_kwargs)

    @property
    def effort(self) -> ReasoningEffort | None:
        return None if self.reasoning is None else self.reasoning.effort

    @property
    def includes(self) -> frozenset[str]:
        return frozenset(self.include or ())

    @property
    def is_stored(self) -> bool:
        return self.store is not False

    @property
    def num_logprobs(self) -> int | None:
        has_logprobs = "message.output_text.logprobs" in self.includes
        return (self.top_logprobs or 0) if has_logprobs or self.top_logprobs else None

    def sampling(self) -> SamplingFields:
        """What chat requests call sampling."""
        return SamplingFields(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            stop=self.stop,
        )

    def template_variables(self) -> dict[str, Any]:
        """What the chat template is told beside the messages."""
        return thinking_variables(self.effort, self.enable_thinking, self.chat_template_kwargs)

    @property
    def must_call(self) -> bool:
        """Whether only a call can be the answer."""
        choice = self.tool_choice
        if isinstance(choice, AllowedTools):
            return choice.mode == "required"
        return choice == "required" or isinstance(choice, NamedFunction)

    def offered_functions(self) -> list[Function]:
        """The functions that may be called.

        Raises:
            InvalidRequest: A name is used twice, or a chosen one is not there.
        """
        choice, names = self.tool_choice, None
        if choice == "none":
            return []
        if isinstance(choice, NamedFunction):
            names = [choice.name]
        elif isinstance(choice, AllowedTools):
            names = [tool.name for tool in choice.tools]
        if not self.tools and (names or choice == "required"):
            raise InvalidRequest("tool_choice asks for a call, but tools is empty", "tool_choice")
        definitions = [tool.definition() for tool in self.tools or ()]
        return offered(definitions, "tools", names)

    def grammar(self) -> GrammarSpec | None:
        """What the answer has to be, or None."""
        asked = None if self.text is None else self.text.format
        if isinstance(asked, JsonObjectFormat):
            return GrammarSpec.json_object("text.format")
        if isinstance(asked, ResponseSchemaFormat):
            return GrammarSpec.json_schema(asked.schema, "text.format.schema")
        return None


class PageQuery(msgspec.Struct, kw_only=True):
    """Which page of a list: `limit` entries behind the one with the id `after`."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


class StoredQuery(msgspec.Struct, kw_only=True):
    """How a stored response is told; it is complete, so it cannot be streamed."""

    stream: Literal["false"] | None = None
