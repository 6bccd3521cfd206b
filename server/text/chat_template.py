"""Renders a checkpoint's Jinja chat template, with what such templates expect to find.

The environment is the one that templates on model hubs are written for: sandboxed, trimmed blocks,
`break` and `continue`, `{% generation %}`, `tojson` without HTML escapes, `raise_exception`,
`strftime_now`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engines.errors import EngineCorrupt, InvalidRequest

RESERVED_VARIABLES = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
)

# Ends the content that the model is to continue; the space shows whether the template trims.
_CUT = "\ufdef"


class ChatTemplate:
    """One compiled template.

    Args:
        source: Jinja.
        special_tokens: Variables such as `bos_token`, from the tokenizer's configuration.

    Raises:
        EngineCorrupt: The template is not valid Jinja.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise EngineCorrupt(f"the engine's chat template is not valid Jinja: {error}") from None
        self.source = source
        self._special_tokens = dict(special_tokens)
        self.knows_developer = "developer" in source

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text.

        Args:
            messages: `role`, `content` and what else the template reads, content as a string.
            tools: Function definitions as the client sent them.
            add_generation_prompt: Open the assistant's turn at the end.
            continue_final_message: Leave the last message open instead, for the model to go on.
            variables: More variables for the template, for example `enable_thinking`.

        Raises:
            InvalidRequest: The template refuses the messages or cannot deal with them.
        """
        if continue_final_message:
            last = messages[-1]
            messages = [*messages[:-1], last | {"content": f"{last['content']}{_CUT} "}]
        given = {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            text = self._template.render(self._special_tokens | dict(variables or {}) | given)
        except Exception as error:  # a template can fail in any way on messages it was not made for
            raise InvalidRequest(
                f"the model's chat template cannot render these messages: {error}", "messages"
            ) from error
        return _cut(text) if continue_final_message else text


def _cut(text: str) -> str:
    text, cut, rest = text.rpartition(_CUT)
    if not cut:
        raise InvalidRequest(
            "continue_final_message is true, but the model's chat template leaves out the content "
            "of the last message",
            "continue_final_message",
        )
    return text if rest.startswith(" ") else text.rstrip()


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)  # what is set inside ends with it


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)
