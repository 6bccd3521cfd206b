"""What a request can ask of an answer's form: OpenAI's `response_format`, and what vLLM takes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from engines.errors import InvalidRequest
from server.schema.described import NonEmptyText, described
from server.schema.sampling import SamplingFields
from server.text.grammar import GrammarSpec


class TextFormat(msgspec.Struct, tag_field="type", tag="text", kw_only=True):
    """No form."""


class JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object", kw_only=True):
    """Any JSON object."""


class JsonSchema(msgspec.Struct, kw_only=True):
    """A schema is enforced whether it is `strict` or not."""

    name: str
    description: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


class JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", kw_only=True):
    """JSON that a schema allows."""

    json_schema: JsonSchema


_Choices = Annotated[list[str], described(minItems=1)]

ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """One of these; `grammar` is Lark, or GBNF if it has `::=`."""

    json: dict[str, Any] | NonEmptyText | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: _Choices | None = None
    grammar: NonEmptyText | None = None


class StructuredFields(SamplingFields, kw_only=True):
    """Beside sampling: the fields of a request that ask for a form, of which one may."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | NonEmptyText | None = None
    guided_regex: str | None = None
    guided_choice: _Choices | None = None
    guided_grammar: NonEmptyText | None = None

    def grammar(self) -> GrammarSpec | None:
        """What the answer has to be, or None.

        Raises:
            InvalidRequest: Two fields ask for something.
        """
        asked = [*_response_format(self.response_format)]
        asked += _outputs("guided_", self.guided_json, self.guided_regex, self.guided_choice,
                          self.guided_grammar)  # fmt: skip
        outputs = self.structured_outputs
        if outputs is not None:
            prefix = "structured_outputs."
            asked += _outputs(prefix, outputs.json, outputs.regex, outputs.choice, outputs.grammar)
            if outputs.json_object:
                asked.append(GrammarSpec.json_object(f"{prefix}json_object"))
        if len(asked) > 1:
            first, second = asked[0].param, asked[1].param
            raise InvalidRequest(
                f"{first} and {second} are both set, but an answer has one form", second
            )
        return asked[0] if asked else None


def _response_format(response_format: ResponseFormat | None) -> list[GrammarSpec]:
    param = "response_format"
    if isinstance(response_format, JsonObjectFormat):
        return [GrammarSpec.json_object(param)]
    if isinstance(response_format, JsonSchemaFormat):
        schema = response_format.json_schema.schema
        return [
            GrammarSpec.json_schema({} if schema is None else schema, f"{param}.json_schema.schema")
        ]
    return []


def _outputs(
    prefix: str,
    schema: dict[str, Any] | str | None,
    regex: str | None,
    choice: list[str] | None,
    grammar: str | None,
) -> list[GrammarSpec]:
    found = []
    if schema is not None:
        found.append(GrammarSpec.json_schema(schema, f"{prefix}json"))
    if regex is not None:
        found.append(GrammarSpec("regex", regex, f"{prefix}regex"))
    if choice is not None:
        found.append(GrammarSpec.choice(choice, f"{prefix}choice"))
    if grammar is not None:
        found.append(GrammarSpec("lark", grammar, f"{prefix}grammar"))
    return found
